//! What can be wrong with the web configuration, worded for the administrator who wrote it. No secret gets into a sentence.

use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use hyper::header::{InvalidHeaderName, InvalidHeaderValue};
use rustls::pki_types::pem;
use rustls::server::VerifierBuilderError;

/// Why a configuration cannot be used: a file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct ConfigError {
    path: PathBuf,
    problem: Problem,
}

impl ConfigError {
    /// What is wrong with a file.
    pub fn new(path: &Path, problem: impl Into<Problem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// What is wrong with a file of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It is too long. Bytes.
    #[error("is {size} bytes long, more than {most}")]
    TooLong {
        /// Its size.
        size: u64,
        /// What is allowed.
        most: u64,
    },
    /// It is no text.
    #[error(transparent)]
    NotUtf8(#[from] FromUtf8Error),
    /// It is no valid YAML, or not of this format: the parser's message, without its picture of the text.
    #[error("{0}")]
    Yaml(String),
    /// `basic_auth_users`
    #[error("basic_auth_users has {users} users, more than {most}")]
    TooManyUsers {
        /// How many it has.
        users: usize,
        /// How many are allowed.
        most: usize,
    },
    /// A password that is no bcrypt hash: neither it nor what is wrong with it is said.
    #[error("the password of {0:?} is no bcrypt hash; `htpasswd -nBC 10 \"\"` makes one")]
    NoHash(String),
    /// A bcrypt hash that takes too long or too short to check.
    #[error("the bcrypt hash of {user:?} has the cost {cost}: {least} to {most} are allowed")]
    Cost {
        /// Whose.
        user: String,
        /// Its cost.
        cost: u32,
        /// The least that is allowed.
        least: u32,
        /// The most that is allowed.
        most: u32,
    },
    /// A header that cannot be set.
    #[error("the header {name:?} cannot be set; these can: {}", .allowed.join(", "))]
    Header {
        /// Its name.
        name: String,
        /// Those that can.
        allowed: &'static [&'static str],
    },
    /// A header's name.
    #[error(transparent)]
    HeaderName(#[from] InvalidHeaderName),
    /// A header's value.
    #[error(transparent)]
    HeaderValue(#[from] InvalidHeaderValue),
    /// The same part in the file and in another one.
    #[error("{0} and {0}_file are both given")]
    Both(&'static str),
    /// TLS without a certificate or without its key.
    #[error("tls_server_config needs cert_file and key_file")]
    NoPair,
    /// A key file without a key.
    #[error("has no private key in PEM: {0}")]
    NoKey(pem::Error),
    /// A certificate file without a certificate.
    #[error("has no certificate in PEM")]
    NoCertificate,
    /// PEM that cannot be read.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// What rustls does not take.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// Authorities that rustls does not take.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
    /// `cipher_suites`
    #[error("unknown cipher suite {name:?}; known are {}", .known.join(", "))]
    Suite {
        /// As written.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// `curve_preferences`
    #[error("unknown curve {name:?}; known are {}", .known.join(", "))]
    Curve {
        /// As written.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// `min_version` below TLS 1.2.
    #[error("min_version: TLS 1.0 and 1.1 are broken and not spoken; use TLS12 or TLS13")]
    OldVersion,
    /// `min_version` above `max_version`.
    #[error("no version is between min_version and max_version")]
    NoVersion,
    /// `client_ca_file` without a use.
    #[error("client_ca_file is given, but client_auth_type does not ask for certificates")]
    UnusedAuthority,
    /// `client_allowed_sans` without certificates that are verified.
    #[error("client_allowed_sans needs a client_auth_type that verifies certificates")]
    UnverifiedNames,
    /// Certificates are to be verified, and there is no authority.
    #[error("client_auth_type needs client_ca_file")]
    NoAuthority,
    /// A name in `client_allowed_sans`.
    #[error("client_allowed_sans: {0:?} is no DNS name or address")]
    NoName(String),
}
