//! Configurations that are wrong: everything that is wrong is said at once, each with its place and what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use tandem_server::flags::Flags;
use tandem_server::settings::{self, Error, Settings};
use tandem_server::store::Location;
use tandem_server::topology::line;
use tempfile::TempDir;

const HEAD: &str = "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\n";
/// What makes a configuration whole.
const REST: &str = "store: {embedded: {directory: data}}\ntopology: {resources: [app]}\n";

/// A directory with a configuration, and an empty directory `app` beside it.
fn site(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("app")).unwrap();
    std::fs::write(directory.path().join("runtime.yaml"), text).unwrap();
    directory
}

fn read_with(directory: &Path, flags: &[&str]) -> Result<Settings, Error> {
    let config = directory.join("runtime.yaml").display().to_string();
    let line = ["tandem-runtime", "--config", &config];
    settings::read(&Flags::try_parse_from(line.iter().chain(flags)).unwrap())
}

fn read(text: &str) -> Result<Settings, Error> {
    read_with(site(text).path(), &[])
}

/// The problems, with places that do not name the directory.
fn problems_in(directory: &Path, flags: &[&str]) -> Vec<String> {
    match read_with(directory, flags) {
        Err(Error::Problems(problems)) => {
            let prefix = format!("{}/", directory.display());
            problems.iter().map(|problem| line(problem).replace(&prefix, "")).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    problems_in(site(text).path(), &[])
}

#[test]
fn a_small_file_is_enough() {
    let directory = site(&format!("{HEAD}{REST}"));
    let settings = read_with(directory.path(), &[]).unwrap();
    assert_eq!(settings.store, Location::Embedded(directory.path().join("data")));
    assert_eq!(settings.resources, [directory.path().join("app")]);
    assert_eq!((settings.http.port(), settings.admin.port(), settings.peers), (8080, 8081, None));
    assert!(settings.http.ip().is_loopback() && settings.admin.ip().is_loopback());
    assert_eq!(settings.drain_grace, Duration::from_secs(20));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = format!(
        "{HEAD}\
store:
  tikv:
    endpoints: [pd:2379, pd, 7]
    tls: {{ca: /no/such/ca.crt, cert: /no/such/cert.crt}}
    histori: 1h
    prefix: \"a b\"
listen:
  http: localhost:8080
  admin: 8081
drainGrace: 2 minutes
limits: {{threads: 0}}
telemetry: {{logFormat: Jason, logFilter: \"a=b=c\"}}
colour: red
"
    );
    let expected = [
        "runtime.yaml:5:26  error[E007] \"pd\" is no address; write HOST:PORT, as pd.example:2379",
        "runtime.yaml:5:30  error[E006] endpoints[2] must be a text, not the number 7; put it in quotes",
        "runtime.yaml:6:10  error[E008] tls has no key; add key",
        "runtime.yaml:6:15  error[E013] /no/such/ca.crt cannot be read: No such file or directory (os error 2); check the path, who owns the file, and where it is mounted",
        "runtime.yaml:6:38  error[E013] /no/such/cert.crt cannot be read: No such file or directory (os error 2); check the path, who owns the file, and where it is mounted",
        "runtime.yaml:7:5  error[E004] tikv has no field \"histori\"; did you mean \"history\"?",
        "runtime.yaml:8:13  error[E007] prefix cannot be \"a b\"; it must match ^[A-Za-z0-9][-A-Za-z0-9_./]*$",
        "runtime.yaml:10:9  error[E007] \"localhost:8080\" is no address to listen on; write IP:PORT, as 127.0.0.1:8080 or 0.0.0.0:8080",
        "runtime.yaml:11:10  error[E006] admin must be a text, not the number 8081; put it in quotes",
        "runtime.yaml:12:13  error[E007] drainGrace cannot be \"2 minutes\"; write a duration like 5s",
        "runtime.yaml:13:19  error[E007] threads cannot be 0; choose a number from 1 to 1024",
        "runtime.yaml:14:24  error[E007] logFormat cannot be \"Jason\"; did you mean \"Json\"?",
        "runtime.yaml:14:42  error[E007] logFilter cannot be \"a=b=c\"",
        "runtime.yaml:15:1  error[E004] the document has no field \"colour\"",
    ];
    let found = problems(&text);
    for expected in expected {
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}\nis not in\n{}", found.join("\n"));
    }
    let missing = found.iter().any(|line| line.contains("no resources are named"));
    assert!(missing, "{}", found.join("\n"));
    assert_eq!(found.len(), expected.len() + 1, "{}", found.join("\n"));
}

#[test]
fn another_version_is_named_and_nothing_else() {
    let text = format!("{HEAD}{REST}unknown: 1\n").replace("v1alpha1", "v1");
    let expected = "runtime.yaml:1:13  error[E003] apiVersion is \"config.tandem.dev/v1\"; this program reads config.tandem.dev/v1alpha1; use the program that the file was written for, or change the file";
    assert_eq!(problems(&text), [expected]);
    let text = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRuntime\nmetadata: {name: a}\n";
    assert_eq!(problems(text).len(), 2);
    assert_eq!(problems("").len(), 1);
    assert_eq!(problems(&format!("{HEAD}store: [\n")).len(), 1);
}

#[test]
fn exactly_one_store_is_named() {
    let check = |store: &str, expected: &str| {
        let found = problems(&format!("{HEAD}{store}topology: {{resources: [app]}}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    };
    check("", "runtime.yaml:1:1  error[E008] no store is named; name exactly one of embedded and tikv");
    check("store: {}\n", "runtime.yaml:3:8  error[E008] no store is named");
    check(
        "store: {embedded: {directory: a}, tikv: {endpoints: [\"a:1\"]}}\n",
        "runtime.yaml:3:8  error[E009] two stores",
    );
    check("store: {embedded: {}}\n", "runtime.yaml:3:19  error[E008] embedded has no directory; add directory");
    check("store: {tikv: {endpoints: []}}\n", "runtime.yaml:3:27  error[E007] endpoints has 0 entries");
    check("store: {embeded: {}}\n", "did you mean \"embedded\"?");
    check("store: {tikv: {endpoints: [\"a:1\"], history: 1s}}\n", "history cannot be 1s; choose one from 10m to 168h");
}

#[test]
fn certificates_are_all_or_nothing() {
    let directory = site("");
    for name in ["ca", "cert", "key"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let text = |tls: &str| {
        format!("{HEAD}store: {{tikv: {{endpoints: [\"a:1\"], tls: {tls}}}}}\ntopology: {{resources: [app]}}\n")
    };
    let write = |tls: &str| std::fs::write(directory.path().join("runtime.yaml"), text(tls)).unwrap();
    write("{ca: ca, cert: cert, key: key}");
    let Location::Tikv(tikv) = read_with(directory.path(), &[]).unwrap().store else { panic!("TiKV") };
    assert_eq!(tikv.tls.unwrap().key, directory.path().join("key"));
    assert_eq!((tikv.prefix.as_str(), tikv.keyspace), ("tandem", None));
    for missing in
        ["{ca: ca, cert: cert}", "{ca: ca, key: key}", "{cert: cert, key: key}", "{ca: ca, cert: cert, key: no}"]
    {
        write(missing);
        assert_eq!(problems_in(directory.path(), &[]).len(), 1, "{missing}");
    }
}

#[test]
fn flags_count_more_than_the_file() {
    let directory = site(&format!("{HEAD}{REST}listen: {{http: \"127.0.0.1:1\"}}\n"));
    let app = directory.path().join("app").display().to_string();
    let flags = ["--http", "127.0.0.1:2", "--store", "tikv://pd:1/shop", "--drain-grace", "0s", "--resources", &app];
    let settings = read_with(directory.path(), &flags).unwrap();
    assert_eq!((settings.http.port(), settings.drain_grace), (2, Duration::ZERO));
    let Location::Tikv(tikv) = settings.store else { panic!("TiKV") };
    assert_eq!((tikv.endpoints, tikv.prefix.as_str()), (vec!["pd:1".to_owned()], "shop"));
}

#[test]
fn what_is_wrong_with_a_flag_names_the_flag() {
    let directory = site(&format!("{HEAD}{REST}"));
    let check = |flags: &[&str], expected: &str| assert_eq!(problems_in(directory.path(), flags), [expected]);
    check(
        &["--http", "8080"],
        "--http  error[E007] \"8080\" is no address to listen on; write IP:PORT, as 127.0.0.1:8080 or 0.0.0.0:8080",
    );
    check(&["--drain-grace", "5"], "--drain-grace  error[E112] drainGrace cannot be \"5\"; write a duration like 5s");
    check(&["--drain-grace", "2h"], "--drain-grace  error[E007] drainGrace cannot be 2h; choose one from 0ms to 1h");
    check(&["--store", "tikv://pd"], "--store  error[E007] \"pd\" is no address; write HOST:PORT, as pd.example:2379");
    check(
        &["--store", "etcd://a:1"],
        "--store  error[E007] \"etcd://a:1\" is no store; write a directory, or tikv://HOST:PORT[,HOST:PORT...][/PREFIX][?keyspace=NAME&ca=FILE&cert=FILE&key=FILE&history=1h]",
    );
}

#[test]
fn flags_alone_are_enough() {
    let directory = site("");
    let app = directory.path().join("app").display().to_string();
    let words = ["tandem-runtime", "--store", "data", "--resources", &app];
    let settings = settings::read(&Flags::try_parse_from(words).unwrap()).unwrap();
    assert_eq!(settings.store, Location::Embedded("data".into()));
    let nothing = settings::read(&Flags::try_parse_from(["tandem-runtime"]).unwrap());
    let Err(Error::Problems(problems)) = nothing else { panic!("{nothing:?}") };
    let found: Vec<String> = problems.iter().map(line).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("--store") && found[1].contains("--resources"), "{found:?}");
}

#[test]
fn peers_can_be_reached() {
    let text =
        |more: &str| format!("{HEAD}store: {{tikv: {{endpoints: [\"a:1\"]}}}}\ntopology: {{resources: [app]}}\n{more}");
    let peers = read(&text("listen: {peer: \"10.0.0.7:0\"}\npeers: {member: pod-0}\n")).unwrap().peers.unwrap();
    assert_eq!((peers.advertise, peers.member.as_deref()), (None, Some("pod-0")));
    let check = |more: &str, expected: &str| {
        let found = problems(&text(more));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    };
    check("listen: {peer: \"0.0.0.0:8082\"}\n", "add peers.advertise");
    check("peers: {advertise: \"a:1\"}\n", "there is no listen.peer");
    check("listen: {peer: \"10.0.0.7:1\"}\npeers: {advertise: a}\n", "\"a\" is no address");
    let embedded = format!("{HEAD}{REST}listen: {{peer: \"127.0.0.1:1\"}}\n");
    assert!(problems(&embedded)[0].contains("embedded store has one runtime"));
}

#[test]
fn a_file_that_is_not_there_is_no_problem_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let error = read_with(directory.path(), &[]).unwrap_err();
    assert!(matches!(error, Error::File(_)), "{error:?}");
    let large = site(&"#".repeat((1 << 20) + 1));
    assert!(read_with(large.path(), &[]).unwrap_err().to_string().contains("at most"));
}
