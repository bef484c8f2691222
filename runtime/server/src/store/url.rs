//! Stores as one word of a command line: `tikv://HOST:PORT[,HOST:PORT][/PREFIX][?ca=…&cert=…&key=…]`, or a directory.

use tandem_crds::resources::duration::Duration;

use super::Location;
use crate::configuration::{Embedded, Store, Tikv, Tls};
use crate::settings;

/// What the name of a TiKV cluster begins with.
pub const TIKV: &str = "tikv://";
/// What separates another scheme from its rest.
const SCHEME_END: &str = "://";
/// How it is written.
const FORM: &str = "tikv://HOST:PORT[,HOST:PORT...][/PREFIX][?keyspace=NAME&ca=FILE&cert=FILE&key=FILE&history=1h]";

/// Reads it, without a look at what it names.
pub fn parse(text: &str) -> Result<Store, String> {
    match text.strip_prefix(TIKV) {
        Some(rest) => Ok(Store { tikv: Some(tikv(rest)?), embedded: None }),
        None if text.contains(SCHEME_END) => Err(format!("{text:?} is no store; write a directory, or {FORM}")),
        None if text.is_empty() => Err(format!("it is empty; write a directory, or {FORM}")),
        None => Ok(Store { embedded: Some(Embedded { directory: Some(text.to_owned()) }), tikv: None }),
    }
}

/// Reads it and checks it, as `tandem dev --store` does.
pub fn location(text: &str) -> Result<Location, String> {
    settings::location(&parse(text)?)
}

fn tikv(rest: &str) -> Result<Tikv, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (endpoints, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if endpoints.is_empty() {
        return Err(format!("it names no PD; write {FORM}"));
    }
    let endpoints = Some(endpoints.split(',').map(str::to_owned).collect());
    let prefix = Some(prefix.trim_end_matches('/').to_owned()).filter(|prefix| !prefix.is_empty());
    let mut tikv = Tikv { endpoints, prefix, ..Tikv::default() };
    let mut tls = Tls::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.is_empty() {
            return Err(format!("{name:?} has no value; write {FORM}"));
        }
        let value = value.to_owned();
        match name {
            "keyspace" => tikv.keyspace = Some(value),
            "history" => tikv.history = Duration(value),
            "ca" => tls.ca = Some(value),
            "cert" => tls.cert = Some(value),
            "key" => tls.key = Some(value),
            _ => return Err(format!("there is no option {name:?}; write {FORM}")),
        }
    }
    tikv.tls = Some(tls).filter(|tls| *tls != Tls::default());
    Ok(tikv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_one_word() {
        let store = parse("tikv://pd-0:2379,pd-1:2379/shop/eu?history=2h").unwrap();
        let tikv = store.tikv.unwrap();
        assert_eq!(tikv.endpoints.unwrap(), ["pd-0:2379", "pd-1:2379"]);
        assert_eq!((tikv.prefix.as_deref(), tikv.history.0.as_str()), (Some("shop/eu"), "2h"));
        assert_eq!((tikv.tls, tikv.keyspace), (None, None));
        assert_eq!(parse("tikv://pd:1/b?keyspace=a").unwrap().tikv.unwrap().keyspace.as_deref(), Some("a"));
    }

    #[test]
    fn a_directory_is_the_embedded_store() {
        assert_eq!(location("data/x"), Ok(Location::Embedded("data/x".into())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, expected: &str| {
            let error = location(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error:?} does not contain {expected:?}");
        };
        check("", "empty");
        check("redis://a:1", "no store");
        check("tikv://", "no PD");
        check("tikv://pd", "\"pd\" is no address");
        check("tikv://pd:0", "\"pd:0\" is no address");
        check("tikv://pd:1,", "\"\" is no address");
        check("tikv://pd:1?colour=red", "no option \"colour\"");
        check("tikv://pd:1?ca", "\"ca\" has no value");
        check("tikv://pd:1/ä", "prefix cannot be");
        check("tikv://pd:1?history=1d", "history cannot be");
        check("tikv://pd:1?history=1s", "from 10m to 168h");
        check("tikv://pd:1?ca=/no/such", "tls has no cert");
    }
}
