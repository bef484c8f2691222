//! An authority, certificates that it signs, and kubeconfigs that name them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::Error;

/// The group that may do everything.
pub(crate) const ADMINISTRATORS: &str = "system:masters";

/// A certificate authority that writes into one directory.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The user, for servers any name.
    pub(crate) name: &'a str,
    /// Groups of the user.
    pub(crate) groups: &'a [&'a str],
    /// Names of a server.
    pub(crate) hosts: &'a [&'a str],
    /// Addresses of a server.
    pub(crate) addresses: &'a [IpAddr],
}

impl Authority {
    /// Makes one: `ca.crt`, and a key pair for tokens of service accounts: `accounts.key`, `accounts.pub`.
    pub(crate) fn create(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::io(format!("create {}", directory.display())))?;
        let wrap = |source| Error::Certificate { name: "the authority".to_owned(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(wrap)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "tandem-cluster");
        let certificate = params.self_signed(&key).map_err(wrap)?;
        write(&directory.join("ca.crt"), &certificate.pem())?;
        write(&directory.join("ca.key"), &key.serialize_pem())?;
        let accounts = KeyPair::generate().map_err(wrap)?;
        write(&directory.join("accounts.key"), &accounts.serialize_pem())?;
        write(&directory.join("accounts.pub"), &accounts.public_key_pem())?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Writes `<file>.crt` and `<file>.key`.
    pub(crate) fn sign(&self, file: &str, subject: &Subject<'_>) -> Result<(), Error> {
        let wrap = |source| Error::Certificate { name: file.to_owned(), source };
        let hosts: Vec<String> = subject.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(wrap)?;
        params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        for group in subject.groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(DnType::CommonName, subject.name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(wrap)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrap)?;
        write(&self.directory.join(format!("{file}.crt")), &certificate.pem())?;
        write(&self.directory.join(format!("{file}.key")), &key.serialize_pem())
    }

    /// Signs a certificate for a user and writes a kubeconfig with it.
    pub(crate) fn kubeconfig(&self, path: &Path, server: &str, subject: &Subject<'_>) -> Result<(), Error> {
        let file = path.file_stem().map_or_else(|| "user".into(), |stem| stem.to_string_lossy());
        let file = format!("user-{file}");
        self.sign(&file, subject)?;
        let at = |name: String| self.directory.join(name).display().to_string();
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority": at("ca.crt".to_owned())}}],
            "users": [{"name": "user", "user": {
                "client-certificate": at(format!("{file}.crt")), "client-key": at(format!("{file}.key")),
            }}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "cluster",
        });
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(format!("create {}", parent.display())))?;
        }
        write(path, &format!("{config:#}\n"))
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(Error::io(format!("write {}", path.display())))
}
