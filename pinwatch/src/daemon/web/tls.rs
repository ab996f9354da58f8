//! The TLS section of the web configuration file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use serde::Deserialize;

use super::problem::{ConfigError, Problem};
use super::watched_file::{Mark, read_marked};

/// `tls_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    cert: Option<String>,
    key: Option<String>,
    client_auth_type: Option<ClientAuth>,
    client_ca_file: Option<PathBuf>,
    client_ca: Option<String>,
    client_allowed_sans: Vec<String>,
    min_version: Option<Version>,
    max_version: Option<Version>,
    cipher_suites: Vec<String>,
    curve_preferences: Vec<String>,
    /// Whose order counts: rustls always takes the server's.
    #[serde(rename = "prefer_server_cipher_suites")]
    _prefer_server: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    #[default]
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Version {
    TLS10,
    TLS11,
    TLS12,
    TLS13,
}

/// How TLS is spoken, and the files that say so.
type Read = (Option<Arc<ServerConfig>>, Vec<(PathBuf, Mark)>);

impl TlsSection {
    /// What a server needs. `path` is of the configuration file, names of other files are relative to `folder`.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(self, path: &Path, folder: &Path) -> Result<Read, ConfigError> {
        let failed = |problem: Problem| ConfigError::new(path, problem);
        let mut files = Vec::new();
        let mut part = |what: &'static str, file: &Option<PathBuf>, text: &Option<String>| {
            let is_set = |text: &&String| !text.trim().is_empty();
            match (file.as_ref().filter(|file| !file.as_os_str().is_empty()), text.as_ref().filter(is_set)) {
                (Some(_), Some(_)) => Err(failed(Problem::Both(what))),
                (None, None) => Ok(None),
                (None, Some(text)) => Ok(Some((path.to_owned(), text.clone().into_bytes()))),
                (Some(file), None) => {
                    let file = folder.join(file);
                    let (bytes, mark) = read_marked(&file)?;
                    files.push((file.clone(), mark));
                    Ok(Some((file, bytes)))
                }
            }
        };
        let (cert, key) =
            (part("cert", &self.cert_file, &self.cert)?, part("key", &self.key_file, &self.key)?);
        let ca = part("client_ca", &self.client_ca_file, &self.client_ca)?;
        let (Some(cert), Some(key)) = (cert, key) else {
            return Err(failed(Problem::NoPair));
        };
        let provider = Arc::new(self.provider().map_err(failed)?);
        let verifier = self.verifier(path, ca, &provider)?;
        let chain = certificates(&cert)?;
        let key = PrivateKeyDer::from_pem_slice(&key.1)
            .map_err(|error| ConfigError::new(&key.0, Problem::NoKey(error)))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions().map_err(failed)?)
            .map_err(|error| failed(error.into()))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| failed(error.into()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Some(Arc::new(config)), files))
    }

    /// Cipher suites and key exchanges that are allowed.
    fn provider(&self) -> Result<CryptoProvider, Problem> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            // Go's names, which differ from rustls' for TLS 1.3.
            let name = |suite: &rustls::SupportedCipherSuite| {
                format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
            };
            let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
            if let Some(unknown) = self.cipher_suites.iter().find(|suite| !known.contains(suite)) {
                return Err(Problem::Suite { name: unknown.clone(), known });
            }
            // As with Go, those of TLS 1.3 cannot be chosen.
            provider.cipher_suites.retain(|suite| {
                suite.version().version == rustls::ProtocolVersion::TLSv1_3
                    || self.cipher_suites.contains(&name(suite))
            });
        }
        if !self.curve_preferences.is_empty() {
            let name = |group: &dyn rustls::crypto::SupportedKxGroup| match group.name() {
                rustls::NamedGroup::secp256r1 => "CurveP256".to_owned(),
                rustls::NamedGroup::secp384r1 => "CurveP384".to_owned(),
                other => format!("{other:?}"),
            };
            let known: Vec<String> = provider.kx_groups.iter().map(|group| name(*group)).collect();
            if let Some(unknown) = self.curve_preferences.iter().find(|curve| !known.contains(curve)) {
                return Err(Problem::Curve { name: unknown.clone(), known });
            }
            provider.kx_groups.retain(|group| self.curve_preferences.contains(&name(*group)));
        }
        Ok(provider)
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
        let least = self.min_version.unwrap_or(Version::TLS12);
        let most = self.max_version.unwrap_or(Version::TLS13);
        if least < Version::TLS12 {
            return Err(Problem::OldVersion);
        }
        let all = [(Version::TLS12, &rustls::version::TLS12), (Version::TLS13, &rustls::version::TLS13)];
        let chosen: Vec<_> =
            all.into_iter().filter(|(version, _)| (least..=most).contains(version)).map(|(_, v)| v).collect();
        if chosen.is_empty() { Err(Problem::NoVersion) } else { Ok(chosen) }
    }

    /// Who checks clients' certificates.
    fn verifier(
        &self,
        path: &Path,
        ca: Option<(PathBuf, Vec<u8>)>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, ConfigError> {
        use ClientAuth::{
            NoClientCert, RequestClientCert, RequireAndVerifyClientCert, RequireAnyClientCert,
            VerifyClientCertIfGiven,
        };
        let failed = |problem: Problem| ConfigError::new(path, problem);
        let wanted = self.client_auth_type.unwrap_or_default();
        let verifies = matches!(wanted, VerifyClientCertIfGiven | RequireAndVerifyClientCert);
        if ca.is_some() && wanted == NoClientCert {
            return Err(failed(Problem::UnusedAuthority));
        }
        if !self.client_allowed_sans.is_empty() && !verifies {
            return Err(failed(Problem::UnverifiedNames));
        }
        let trust = match wanted {
            NoClientCert => return Ok(None),
            RequestClientCert | RequireAnyClientCert => {
                Trust::Any { mandatory: wanted == RequireAnyClientCert }
            }
            VerifyClientCertIfGiven | RequireAndVerifyClientCert => {
                let Some(ca) = ca else { return Err(failed(Problem::NoAuthority)) };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&ca)? {
                    roots.add(certificate).map_err(|error| ConfigError::new(&ca.0, error))?;
                }
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                let builder = match wanted {
                    VerifyClientCertIfGiven => builder.allow_unauthenticated(),
                    _ => builder,
                };
                Trust::Chain(builder.build().map_err(|error| ConfigError::new(path, error))?)
            }
        };
        let names = self.client_allowed_sans.iter().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| failed(Problem::NoName(name.clone())))
        });
        let names = names.collect::<Result<_, _>>()?;
        Ok(Some(Arc::new(Clients { trust, names, algorithms: provider.signature_verification_algorithms })))
    }
}

fn certificates((path, pem): &(PathBuf, Vec<u8>)) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(ConfigError::new(path, Problem::NoCertificate)),
        Err(error) => Err(ConfigError::new(path, error)),
    }
}

/// Whose certificates are taken.
#[derive(Debug)]
enum Trust {
    /// Anybody's, as long as the client has its key.
    Any { mandatory: bool },
    /// Those that an authority has signed.
    Chain(Arc<dyn ClientCertVerifier>),
}

/// Who may connect: what is trusted, and of that what is for one of these names, if there are any.
#[derive(Debug)]
struct Clients {
    trust: Trust,
    names: Vec<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        match &self.trust {
            Trust::Any { mandatory } => *mandatory,
            Trust::Chain(chain) => chain.client_auth_mandatory(),
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.trust {
            Trust::Any { .. } => &[],
            Trust::Chain(chain) => chain.root_hint_subjects(),
        }
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = match &self.trust {
            Trust::Any { .. } => ClientCertVerified::assertion(),
            Trust::Chain(chain) => chain.verify_client_cert(cert, intermediates, now)?,
        };
        if self.names.is_empty() {
            return Ok(verified);
        }
        let parsed = rustls::server::ParsedCertificate::try_from(cert)?;
        let fits = |name: &ServerName<'_>| rustls::client::verify_server_name(&parsed, name).is_ok();
        if self.names.iter().any(fits) {
            Ok(verified)
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
