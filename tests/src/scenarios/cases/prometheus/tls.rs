//! TLS, client certificates and passwords, with curl and with Prometheus; configurations that change, and broken ones.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{ADDRESS, Server, curl, eventually};
use crate::Outcome;
use crate::guest::{Guest, SOON, WEB_CONFIG, shell};

/// Of the passwords "old" and "new", cost 5.
const OLD: &str = "$2b$05$abcdefghijklmnopqrstuugsBODdSIQv1RxnI8aaFc6h0RUUfZOGC";
const NEW: &str = "$2b$05$abcdefghijklmnopqrstuuPwERFOEx0ltJDSJgU/SzJ23sOz5Pmpi";

/// Keys and certificates: an authority, a server, a client; and another authority with a client of its own.
fn certificates() -> Result<()> {
    let make = |name: &str, authority: &str, san: &str| {
        shell(&format!(
            "cd /tmp/tls && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} 2>/dev/null && \
             printf 'subjectAltName={san}' > {name}.ext && \
             openssl x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt 2>/dev/null"
        ))
    };
    shell("rm -rf /tmp/tls && mkdir /tmp/tls")?;
    for authority in ["ca", "other"] {
        shell(&format!(
            "cd /tmp/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority} 2>/dev/null"
        ))?;
    }
    make("server", "ca", "DNS:localhost,IP:127.0.0.1")?;
    make("client", "ca", "DNS:prometheus")?;
    make("stranger", "other", "DNS:prometheus")?;
    Ok(())
}

fn config(tls: &str, hash: &str) -> String {
    let mut text = String::new();
    if !tls.is_empty() {
        text +=
            &format!("tls_server_config:\n  cert_file: tls/server.crt\n  key_file: tls/server.key\n{tls}");
    }
    if !hash.is_empty() {
        text += &format!("basic_auth_users:\n  prometheus: {hash}\n");
    }
    text
}

/// Each request looks at the configuration anew.
fn status(arguments: &[&str]) -> Result<u32> {
    Ok(curl(arguments)?.status)
}

/// `web-tls`.
pub fn tls(guest: &mut Guest) -> Result<Outcome> {
    let result = all(guest);
    fs::write(WEB_CONFIG, "")?;
    let outcome = result?;
    ensure!(
        status(&[&format!("http://{ADDRESS}/metrics")])? == 200,
        "without a configuration it is not plain again"
    );
    Ok(outcome)
}

fn all(guest: &Guest) -> Result<Outcome> {
    let (plain, secure) = (format!("http://{ADDRESS}/metrics"), format!("https://{ADDRESS}/metrics"));
    certificates()?;
    let ca = ["--cacert", "/tmp/tls/ca.crt"];
    let with = |more: &[&str]| status(&[&ca[..], more, &[&secure]].concat());
    // Passwords alone.
    fs::write(WEB_CONFIG, config("", OLD))?;
    for (arguments, wanted) in [
        (&[][..], 401),
        (&["-u", "prometheus:old"], 200),
        (&["-u", "prometheus:new"], 401),
        (&["-u", "somebody:old"], 401),
        (&["-H", "Authorization: Basic ???"], 401),
    ] {
        let got = status(&[arguments, &[&plain]].concat())?;
        ensure!(got == wanted, "{arguments:?}: {got}, not {wanted}");
    }
    for path in ["/", "/-/ready"] {
        ensure!(status(&[&format!("http://{ADDRESS}{path}")])? == 401, "{path} is open");
    }
    // TLS, and a new password: without a restart.
    fs::write(WEB_CONFIG, config("  min_version: TLS12\n", NEW))?;
    ensure!(
        with(&["-u", "prometheus:new"])? == 200,
        "TLS: {}",
        curl(&[&ca[..], &["-u", "prometheus:new", &secure]].concat())?.error
    );
    ensure!(with(&["-u", "prometheus:old"])? == 401, "the old password still is good");
    ensure!(with(&["-u", "prometheus:new", "--tls-max", "1.2"])? == 200, "TLS 1.2");
    ensure!(status(&[&plain])? == 0, "plain HTTP is answered beside TLS");
    let wrong = curl(&["--cacert", "/tmp/tls/other.crt", &secure])?;
    ensure!(wrong.status == 0 && wrong.error.contains("certificate"), "another authority: {}", wrong.error);
    // Client certificates.
    let mutual = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls/ca.crt\n";
    let client = |name: &str| {
        let file = |end: &str| format!("/tmp/tls/{name}.{end}");
        with(&["--cert", &file("crt"), "--key", &file("key")])
    };
    fs::write(WEB_CONFIG, config(&format!("{mutual}  client_allowed_sans: [prometheus]\n"), ""))?;
    ensure!(client("client")? == 200, "the client's certificate is refused");
    ensure!(with(&[])? == 0 && client("stranger")? == 0, "others come in");
    fs::write(WEB_CONFIG, config(&format!("{mutual}  client_allowed_sans: [somebody-else]\n"), ""))?;
    ensure!(client("client")? == 0, "a client of another name comes in");
    fs::write(WEB_CONFIG, config("  client_auth_type: RequireAnyClientCert\n", ""))?;
    ensure!(client("stranger")? == 200 && with(&[])? == 0, "any certificate, but one");
    // A broken configuration changes nothing, and says so.
    fs::write(WEB_CONFIG, config("", OLD))?;
    ensure!(status(&["-u", "prometheus:old", &plain])? == 200, "the configuration is not followed");
    fs::write(WEB_CONFIG, "basic_auth_users: {prometheus: hunter2}\n")?;
    // On a slow machine the same answer serves several scrapes.
    eventually(SOON, || {
        let got = curl(&["-u", "prometheus:old", &plain])?;
        let says_so = got.status == 200 && got.body.contains("pinwatch_web_config_good 0");
        ensure!(says_so, "{} {}", got.status, got.body);
        Ok(())
    })?;
    let log = guest.log()?;
    ensure!(log.contains("bcrypt") && !log.contains("hunter2"), "the log does not say it, or too much");
    prometheus()?;
    Ok(Outcome::Passed(None))
}

/// Prometheus itself, with all that it takes, and with one thing wrong each time.
fn prometheus() -> Result<()> {
    let mutual = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls/ca.crt\n";
    fs::write(WEB_CONFIG, config(mutual, NEW))?;
    let job = |name: &str, password: &str, ca: &str, client: &str| {
        let cert = match client {
            "" => String::new(),
            client => format!("cert_file: /tmp/tls/{client}.crt, key_file: /tmp/tls/{client}.key, "),
        };
        format!(
            "- job_name: {name}\n  scheme: https\n  basic_auth: {{username: prometheus, password: {password}}}\n  \
             tls_config: {{{cert}ca_file: /tmp/tls/{ca}.crt}}\n  static_configs: [{{targets: ['{ADDRESS}']}}]\n"
        )
    };
    let jobs = [
        job("good", "new", "ca", "client"),
        job("password", "old", "ca", "client"),
        job("authority", "new", "other", "client"),
        job("nobody", "new", "ca", ""),
        job("stranger", "new", "ca", "stranger"),
    ];
    let text =
        format!("global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n{}", jobs.concat());
    let server = Server::prometheus(&text)?;
    let check = || {
        let targets = server.api("targets", &["-d", "state=active"])?;
        let targets = targets["activeTargets"].as_array().cloned().unwrap_or_default();
        let of = |name: &str| targets.iter().find(|target| target["labels"]["job"] == name);
        for (name, health, wanted) in [
            ("good", "up", ""),
            ("password", "down", "401"),
            ("authority", "down", "certificate"),
            ("nobody", "down", "certificate"),
            ("stranger", "down", "certificate"),
        ] {
            let target = of(name).with_context(|| format!("no {name}"))?;
            let said = target["lastError"].as_str().unwrap_or_default();
            ensure!(
                target["health"] == health && said.contains(wanted),
                "{name}: {} {said}",
                target["health"]
            );
        }
        Ok(())
    };
    eventually(Duration::from_secs(60), check)?;
    // A password that changes is found by the next scrape.
    fs::write(WEB_CONFIG, config(mutual, OLD))?;
    eventually(SOON * 20, || {
        let up = server.query("up{job=~\"good|password\"} == 1")?;
        let jobs: Vec<&str> = up.iter().filter_map(|(labels, _)| labels["job"].as_str()).collect();
        ensure!(jobs == ["password"], "after the password changed {jobs:?} are up");
        Ok(())
    })
}
