//! A private certificate authority with a server's and a client's certificate, made by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::run;

/// The name in the server's certificate beside `localhost` and 127.0.0.1.
pub const SERVER_NAME: &str = "redis.example";

/// Paths of the PEM files.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate, for 127.0.0.1, `localhost` and [`SERVER_NAME`].
    pub server_cert: PathBuf,
    /// The server's key.
    pub server_key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
    /// The client's key.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes all of them in `folder`; each call makes an authority that trusts no other.
    pub fn make(folder: &Path) -> Self {
        let (ca, ca_key) = (folder.join("ca.crt"), folder.join("ca.key"));
        run(openssl_req(&ca_key, &ca, "/CN=test authority")
            .arg("-x509")
            .args(["-addext", "basicConstraints=critical,CA:TRUE"])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]));
        // A cluster node is also a client on the bus and to its primary.
        let server_extensions = format!(
            "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{SERVER_NAME}\nextendedKeyUsage=serverAuth,clientAuth"
        );
        let (server_cert, server_key) = issue(folder, "server", &server_extensions);
        let (client_cert, client_key) = issue(folder, "client", "extendedKeyUsage=clientAuth");
        Self { ca, server_cert, server_key, client_cert, client_key }
    }

    /// Another certificate for the server's key, by the same authority, that ended yesterday.
    pub fn expired_server_certificate(&self) -> PathBuf {
        let folder = self.ca.parent().expect("folder of the certificates");
        let expired = folder.join("expired.crt");
        sign(folder, "server", "-1", &expired);
        expired
    }
}

fn openssl_req(key: &Path, out: &Path, subject: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]);
    command.args(["-subj", subject]).arg("-keyout").arg(key).arg("-out").arg(out);
    command
}

fn issue(folder: &Path, name: &str, extensions: &str) -> (PathBuf, PathBuf) {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let (key, request, certificate, extension_file) = (file("key"), file("csr"), file("crt"), file("ext"));
    fs::write(&extension_file, format!("basicConstraints=CA:FALSE\n{extensions}\n")).expect("extension file");
    run(&mut openssl_req(&key, &request, &format!("/CN={name}")));
    sign(folder, name, "30", &certificate);
    (certificate, key)
}

/// The authority signs a request, with the extensions beside it.
fn sign(folder: &Path, name: &str, days: &str, certificate: &Path) {
    run(Command::new("openssl")
        .args(["x509", "-req", "-days", days, "-CAcreateserial"])
        .arg("-CA")
        .arg(folder.join("ca.crt"))
        .arg("-CAkey")
        .arg(folder.join("ca.key"))
        .arg("-in")
        .arg(folder.join(format!("{name}.csr")))
        .arg("-extfile")
        .arg(folder.join(format!("{name}.ext")))
        .arg("-out")
        .arg(certificate));
}
