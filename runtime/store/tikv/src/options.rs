//! How to reach a cluster, and which part of it is ours.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tandem_store::Error;

use crate::retry::Timeouts;

/// Stands before the endpoints of PD in an address.
const SCHEME: &str = "tikv://";
/// The port of PD where none is given.
const PD_PORT: u16 = 2379;
/// What the keys of an installation begin with where nothing else is said. In a cluster of version 2 of the protocol,
/// who does not use a keyspace may only use keys that begin with `m` or `t`.
const PREFIX: &str = "tandem/";
/// A longer prefix takes room in every key.
const PREFIX_BYTES_MAX: usize = 64;
/// A shorter window would remove what flows still read.
const HISTORY_MIN: Duration = Duration::from_mins(10);

/// Everything that a store on TiKV needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Endpoints of PD: `host:port`. One that can be reached is enough to begin with.
    pub endpoints: Vec<String>,
    /// Certificates. Without them, connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// What all keys of this installation begin with. Two installations on one cluster must not share it.
    pub prefix: String,
    /// The keyspace, on a cluster that has version 2 of the protocol enabled.
    pub keyspace: Option<String>,
    /// How far back the past can be read.
    pub history: Duration,
    /// Whether this process may be elected to remove old history and the locks of the dead. Off where the cluster is
    /// shared with somebody who does so, such as TiDB.
    pub housekeeping: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// Files of TLS, all in PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those who sign the certificates of stores and PD.
    pub authority: PathBuf,
    /// Our certificate and its chain.
    pub certificate: PathBuf,
    /// Our private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// All three or none. Anything between is refused: it would be a connection that is not what was meant.
    pub fn from_parts(
        authority: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<Self>, Error> {
        match (authority, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(authority), Some(certificate), Some(key)) => Ok(Some(Self { authority, certificate, key })),
            (authority, certificate, key) => {
                let parts = [("authority", authority), ("certificate", certificate), ("key", key)];
                let missing: Vec<&str> =
                    parts.iter().filter(|(_, part)| part.is_none()).map(|(name, _)| *name).collect();
                let missing = missing.join(" and ");
                Err(Error::Refused(format!("TLS needs authority, certificate and key; there is no {missing}")))
            }
        }
    }
}

impl FromStr for Options {
    type Err = Error;

    /// `tikv://HOST[:PORT][,HOST[:PORT]...][/PREFIX]`.
    fn from_str(address: &str) -> Result<Self, Error> {
        let refused = |why: &str| {
            Error::Refused(format!("{address:?} {why}; expected {SCHEME}HOST:PORT[,HOST:PORT...][/PREFIX]"))
        };
        let rest = address.strip_prefix(SCHEME).ok_or_else(|| refused("is no address of TiKV"))?;
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoints: Result<Vec<String>, &str> = hosts.split(',').map(endpoint).collect();
        let endpoints = endpoints.map_err(refused)?;
        let prefix = if prefix.is_empty() { PREFIX.to_owned() } else { format!("{}/", prefix.trim_end_matches('/')) };
        Ok(Self {
            endpoints,
            tls: None,
            prefix,
            keyspace: None,
            history: HISTORY_MIN,
            housekeeping: true,
            timeouts: Timeouts::default(),
        })
    }
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "has a port that is no number")?),
        _ => (text, PD_PORT),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("has a host that is empty or no name");
    }
    Ok(format!("{host}:{port}"))
}

impl Options {
    /// What is wrong, before anybody is asked over the network.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |why: String| Err(Error::Refused(why));
        if self.endpoints.is_empty() {
            return refused("there is no endpoint of PD".to_owned());
        }
        if self.prefix.is_empty() || self.prefix.len() > PREFIX_BYTES_MAX {
            return refused(format!("the key prefix must have 1 to {PREFIX_BYTES_MAX} bytes"));
        }
        if !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refused("the key prefix must consist of printable ASCII characters without blanks".to_owned());
        }
        if self.history < HISTORY_MIN {
            return refused(format!("history must be kept for at least {} seconds", HISTORY_MIN.as_secs()));
        }
        Ok(())
    }

    /// What the keys of all rows begin with on a cluster without keyspaces: the slot follows. Regions can be cut behind it.
    pub fn rows_prefix(&self) -> Vec<u8> {
        [self.prefix.as_bytes(), crate::remote::ROWS].concat()
    }

    /// How the installation is called in messages.
    pub fn shown(&self) -> String {
        format!("{SCHEME}{}/{}", self.endpoints.join(","), self.prefix.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_endpoints_and_a_prefix() {
        let options: Options = "tikv://pd-0:1234,pd-1,[::1]/shop/eu".parse().expect("it is one");
        assert_eq!(options.endpoints, ["pd-0:1234", "pd-1:2379", "[::1]:2379"]);
        assert_eq!(options.prefix, "shop/eu/");
        assert_eq!(options.shown(), "tikv://pd-0:1234,pd-1:2379,[::1]:2379/shop/eu");
        let short: Options = "tikv://localhost".parse().expect("it is one");
        assert_eq!((short.endpoints, short.prefix.as_str()), (vec!["localhost:2379".to_owned()], "tandem/"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in ["http://pd:1", "tikv://", "tikv://pd:x", "tikv://pd:1,", "tikv://p d"] {
            let error = address.parse::<Options>().expect_err(address);
            assert!(error.to_string().contains("expected tikv://HOST"), "{error}");
        }
    }

    #[test]
    fn tls_is_all_or_nothing() {
        let file = || Some(PathBuf::from("x.pem"));
        assert_eq!(TlsFiles::from_parts(None, None, None).expect("nothing is fine"), None);
        assert!(TlsFiles::from_parts(file(), file(), file()).expect("all is fine").is_some());
        let error = TlsFiles::from_parts(file(), None, None).expect_err("half is not");
        assert!(error.to_string().ends_with("there is no certificate and key"), "{error}");
    }

    #[test]
    fn bounds_are_checked() {
        let good: Options = "tikv://pd".parse().expect("it is one");
        good.check().expect("nothing is wrong");
        let cases = [
            (Options { endpoints: Vec::new(), ..good.clone() }, "no endpoint"),
            (Options { prefix: String::new(), ..good.clone() }, "key prefix must have"),
            (Options { prefix: "a b".to_owned(), ..good.clone() }, "printable"),
            (Options { history: Duration::from_secs(1), ..good }, "at least 600 seconds"),
        ];
        for (options, part) in cases {
            let error = options.check().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
