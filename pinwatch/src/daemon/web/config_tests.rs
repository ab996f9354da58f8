use super::*;

/// Of "secret", cost 4.
fn hash() -> String {
    bcrypt::hash("secret", 4).unwrap()
}

/// A folder with a configuration, a certificate and its key.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), signed.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        let place = Self { folder };
        place.write(text);
        place
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn read(&self) -> Result<Loaded, ConfigError> {
        Loaded::read(Some(&self.path()))
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";

#[test]
fn nothing_means_plain_and_open() {
    for text in ["", "# nothing\n\n", "---\n", "{}\n"] {
        let loaded = Place::new(text).read().unwrap();
        assert!(loaded.config.tls.is_none() && loaded.config.users.is_empty(), "{text:?}");
    }
    assert!(Loaded::read(None).unwrap().config.users.is_empty());
}

#[test]
fn all_that_a_configuration_can_say() {
    let text = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: cert.pem\n  \
         client_allowed_sans: [prometheus.example, 192.0.2.1]\n  min_version: TLS12\n  max_version: TLS13\n  \
         prefer_server_cipher_suites: true\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  \
         curve_preferences: [CurveP256, X25519]\nhttp_server_config:\n  http2: true\n  headers:\n    \
         X-Frame-Options: deny\nbasic_auth_users:\n  prometheus: {}\n",
        hash()
    );
    let config = Place::new(&text).read().unwrap().config;
    assert!(config.tls.is_some());
    assert_eq!(config.users.len(), 1);
    assert_eq!(config.headers[0].1, "deny");
}

#[test]
fn each_way_to_ask_for_certificates() {
    for (kind, ca) in [
        ("NoClientCert", false),
        ("RequestClientCert", false),
        ("RequireAnyClientCert", false),
        ("VerifyClientCertIfGiven", true),
        ("RequireAndVerifyClientCert", true),
    ] {
        let with = if ca { "  client_ca_file: cert.pem\n" } else { "" };
        let text = format!("{TLS}  client_auth_type: {kind}\n{with}");
        assert!(Place::new(&text).read().is_ok_and(|loaded| loaded.config.tls.is_some()), "{kind}");
    }
}

#[test]
fn what_cannot_be_used_is_named_and_no_secret_told() {
    let hash = hash();
    for (text, wanted) in [
        ("tls_server_config:\n  cert_file: cert.pem\n".to_owned(), "key_file"),
        (TLS.replace("cert.pem", "missing.pem"), "missing.pem"),
        (TLS.replace("key.pem", "cert.pem"), "private key"),
        (TLS.replace("cert.pem", "key.pem"), "no certificate"),
        (format!("{TLS}  cert: |\n    x\n"), "both"),
        (format!("{TLS}  client_ca_file: cert.pem\n"), "client_auth_type"),
        (format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n"), "client_ca_file"),
        (format!("{TLS}  client_auth_type: Sometimes\n"), "Sometimes"),
        (format!("{TLS}  client_allowed_sans: [a]\n"), "client_allowed_sans"),
        (format!("{TLS}  min_version: TLS10\n"), "TLS 1.0"),
        (format!("{TLS}  min_version: TLS13\n  max_version: TLS12\n"), "between"),
        (format!("{TLS}  cipher_suites: [NONE]\n"), "NONE"),
        (format!("{TLS}  curve_preferences: [CurveP9]\n"), "CurveP9"),
        (format!("{TLS}  cert_fiel: x\n"), "cert_fiel"),
        ("http_server_config:\n  headers:\n    Set-Cookie: x\n".to_owned(), "Set-Cookie"),
        ("basic_auth_users:\n  a: hunter2\n".to_owned(), "bcrypt"),
        (format!("basic_auth_users:\n  a: {}\n", hash.replace("$04$", "$31$")), "cost 31"),
        ("basic_auth_users: [hunter2\n".to_owned(), "web.yml"),
        ("a: &a [*a, *a]\n".to_owned(), "web.yml"),
    ] {
        let Err(error) = Place::new(&text).read() else { panic!("{text} is taken") };
        let error = error.to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{text}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(&hash[7..]), "{error}");
    }
    assert!(Loaded::read(Some(Path::new("/nonexistent/web.yml"))).is_err());
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
    let place = Place::new(TLS);
    let mut loaded = place.read().unwrap();
    assert!(!loaded.follow().unwrap());
    place.write(&format!("basic_auth_users:\n  a: {}\n", hash()));
    assert!(loaded.follow().unwrap());
    assert!(loaded.config.tls.is_none() && loaded.config.users.contains_key("a"));
    place.write("basic_auth_users:\n  a: no hash\n");
    assert!(loaded.follow().is_err());
    assert!(loaded.config.users.contains_key("a"));
    // Told once, not with each request.
    assert!(!loaded.follow().unwrap());
    std::fs::remove_file(place.path()).unwrap();
    assert!(loaded.follow().is_err() && loaded.config.users.contains_key("a"));
    place.write(TLS);
    assert!(loaded.follow().unwrap() && loaded.config.tls.is_some());
    // The certificate alone.
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let before = loaded.config.tls.clone().unwrap();
    std::fs::write(place.folder.path().join("cert.pem"), signed.cert.pem()).unwrap();
    // Certificate and key do not fit: the old ones stay.
    assert!(loaded.follow().is_err() && Arc::ptr_eq(&before, loaded.config.tls.as_ref().unwrap()));
    std::fs::write(place.folder.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    assert!(loaded.follow().unwrap() && !Arc::ptr_eq(&before, loaded.config.tls.as_ref().unwrap()));
}
