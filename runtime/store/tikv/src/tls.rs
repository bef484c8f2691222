//! Certificates: read and checked by us, before they are used.
//!
//! The crate `tikv-client` connects without encryption, and says nothing, if one of the three files is missing. Therefore
//! nothing is handed to it that was not found to be whole here.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use tandem_store::Error;

use crate::options::TlsFiles;
use crate::remote::channels::Certificates;

/// Reads the files. An error says which of them is wrong, and how.
pub(crate) fn read(files: &TlsFiles, now: UnixTime) -> Result<Certificates, Error> {
    let (authority, authorities) = certificates("authority", &files.authority)?;
    let (certificate, chain) = certificates("certificate", &files.certificate)?;
    let key = bytes("key", &files.key)?;
    let private =
        PrivateKeyDer::from_pem_slice(&key).map_err(|error| refused("key", &files.key, &error.to_string()))?;
    let signer =
        ring::sign::any_supported_type(&private).map_err(|error| refused("key", &files.key, &error.to_string()))?;
    if CertifiedKey::new(chain.clone(), signer).keys_match().is_err() {
        let why = format!("is not the key of {}", files.certificate.display());
        return Err(refused("key", &files.key, &why));
    }
    check_chain(files, authorities, &chain, now)?;
    Ok(Certificates { authority, certificate, key })
}

fn check_chain(
    files: &TlsFiles,
    authorities: Vec<CertificateDer<'static>>,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| refused("authority", &files.authority, &error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let verifier = verifier.build().map_err(|error| refused("authority", &files.authority, &error.to_string()))?;
    let Some((own, others)) = chain.split_first() else {
        return Err(refused("certificate", &files.certificate, "has no certificate"));
    };
    verifier.verify_client_cert(own, others, now).map(|_| ()).map_err(|error| {
        let why =
            format!("is not to be used: {error}; it must be valid now and signed by {}", files.authority.display());
        refused("certificate", &files.certificate, &why)
    })
}

fn certificates(what: &str, path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), Error> {
    let bytes = bytes(what, path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let parsed = parsed.map_err(|error| refused(what, path, &error.to_string()))?;
    if parsed.is_empty() {
        return Err(refused(what, path, "has no certificate in PEM"));
    }
    Ok((bytes, parsed))
}

fn bytes(what: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| refused(what, path, &format!("cannot be read: {error}")))
}

fn refused(what: &str, path: &Path, why: &str) -> Error {
    Error::Refused(format!("TLS: {what} {} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    /// A time within the certificates of these tests, and one after them.
    const NOW: u64 = 1_800_000_000;
    const LATER: u64 = 4_000_000_000;

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn parameters(name: &str) -> CertificateParams {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        parameters.not_before = date_time_ymd(2025, 1, 1);
        parameters.not_after = date_time_ymd(2035, 1, 1);
        parameters
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().expect("there is chance");
        let mut parameters = parameters("authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("it can be signed").pem();
        Authority { pem, issuer: Issuer::new(parameters, key) }
    }

    fn signed(authority: &Authority) -> (String, String) {
        let key = KeyPair::generate().expect("there is chance");
        let certificate = parameters("localhost").signed_by(&key, &authority.issuer).expect("it can be signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn check(authority: &str, certificate: &str, key: &str, now: u64) -> Result<Certificates, String> {
        let directory = tempfile::tempdir().expect("there is room");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("there is room");
            path
        };
        let files = TlsFiles {
            authority: file("ca.pem", authority),
            certificate: file("cert.pem", certificate),
            key: file("key.pem", key),
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        read(&files, now).map_err(|error| error.to_string())
    }

    fn says(result: Result<Certificates, String>, parts: &[&str]) {
        let error = result.err().expect("it must be refused");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn files_that_fit_are_taken() {
        let authority = authority();
        let (certificate, key) = signed(&authority);
        let read = check(&authority.pem, &certificate, &key, NOW).expect("they fit");
        assert_eq!(read.key, key.into_bytes());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (one, other) = (authority(), authority());
        let (certificate, key) = signed(&one);
        let (_, other_key) = signed(&one);
        says(check(&one.pem, &certificate, &other_key, NOW), &["key.pem", "is not the key of", "cert.pem"]);
        says(check(&other.pem, &certificate, &key, NOW), &["cert.pem", "signed by", "ca.pem"]);
        says(check(&one.pem, &certificate, &key, LATER), &["cert.pem", "xpired"]);
        says(check("", &certificate, &key, NOW), &["ca.pem", "has no certificate"]);
        says(check(&one.pem, &key, &key, NOW), &["cert.pem", "has no certificate"]);
        says(check(&one.pem, &certificate, "", NOW), &["key.pem"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = Path::new("/nowhere/at/all.pem");
        let files = TlsFiles { authority: missing.into(), certificate: missing.into(), key: missing.into() };
        let error = read(&files, UnixTime::since_unix_epoch(Duration::ZERO)).err().expect("it must be refused");
        assert!(error.to_string().contains("/nowhere/at/all.pem cannot be read"), "{error}");
    }
}
