//! Data directories that cannot be used, and disks that take no more.

use std::path::Path;

use super::bank::{Transfer, accounts, bank, check_books, open_accounts};
use super::http::Answer;
use super::process::{Dev, said, tandem};

const ACCOUNTS: usize = 4;
/// Where state is kept, below the application's directory.
const DATA: &str = ".tandem";

fn refused(directory: &Path) -> String {
    let path = directory.display().to_string();
    let ended = tandem(&["dev", &path, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let said = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn data_directory_in_use_or_of_a_newer_version_is_left_alone() {
    let directory = bank();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let before = accounts(&dev);
    assert!(refused(directory.path()).contains("in use by another process"));
    assert_eq!(accounts(&dev), before);
    dev.stop();

    let format = directory.path().join(DATA).join("store/format");
    let known = std::fs::read_to_string(&format).unwrap();
    let newer = known.replace("format 1", "format 2");
    assert_ne!(newer, known);
    std::fs::write(&format, newer).unwrap();
    let line = refused(directory.path());
    assert!(line.contains("has format 2, this version reads up to 1") && line.contains("newer version"), "{line}");
    std::fs::write(&format, "nonsense").unwrap();
    let line = refused(directory.path());
    assert!(line.contains("does not name a format"), "{line}");

    std::fs::write(&format, known).unwrap();
    let dev = Dev::start(directory.path());
    assert_eq!(accounts(&dev), before);
    dev.stop();
}

/// Sends the `number`th transfer until there is no answer any more, and gives those that were answered.
fn send_until_gone(dev: &Dev, mut number: usize) -> Vec<(Transfer, Answer)> {
    const ENOUGH: usize = 5_000;
    let mut answered = Vec::new();
    while number < ENOUGH {
        let transfer = Transfer::number(number, ACCOUNTS);
        match transfer.request.send(&dev.http) {
            Ok(answer) if answer.status != 503 => answered.push((transfer, answer)),
            Ok(_) | Err(_) => return answered,
        }
        number += 1;
    }
    panic!("{ENOUGH} transfers fit where there was room for far less");
}

/// A write that fails for whatever reason: what is on disk is not known any more, so nobody is answered.
#[test]
fn failed_write_ends_the_process_and_the_next_start_has_all_that_was_acknowledged() {
    // A file may have so many blocks of 512 bytes (1,024 in some shells), and the signal that says so is ignored.
    const LIMITED: &str = "trap '' XFSZ; ulimit -f 256; exec \"$@\"";
    let directory = bank();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    dev.stop();
    let mut limited = Dev::start_behind("sh", &["-c", LIMITED, "sh"], directory.path());
    let mut answered = send_until_gone(&limited, 0);
    assert!(!answered.is_empty());
    let (status, printed) = limited.ended();
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("the store has stopped") && printed.contains("Start again"), "{printed}");

    let dev = Dev::start(directory.path());
    for (transfer, answer) in &answered {
        assert_eq!(transfer.request.settle(&dev.http).outcome(), answer.outcome(), "{transfer:?}");
    }
    // Nobody knows what became of the one without an answer. Asked again, it happens once.
    let last = Transfer::number(answered.len(), ACCOUNTS);
    let answer = last.request.settle(&dev.http);
    assert_eq!(last.request.settle(&dev.http).outcome(), answer.outcome());
    answered.push((last, answer));
    check_books(&dev, &answered);
    dev.stop();
}

/// A file system of its own for the data, which is gone with the process.
#[cfg(target_os = "linux")]
mod full {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::super::http::Request;
    use super::*;

    /// 256 MiB of it must stay free.
    const MOUNT: &str = "mount -t tmpfs -o size=300m tmpfs \"$1\" && shift && exec \"$@\"";
    const BALLAST_BYTES: usize = 50 << 20;

    fn can_mount(directory: &str) -> bool {
        let mut attempt = Command::new("unshare");
        attempt.args(["-rm", "sh", "-c", MOUNT, "sh", directory, "true"]).stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    }

    #[test]
    fn full_disk_refuses_requests_and_room_lets_it_go_on() {
        let directory = bank();
        let data = directory.path().join(DATA);
        std::fs::create_dir(&data).unwrap();
        let mounted = data.display().to_string();
        if !can_mount(&mounted) {
            println!("skipped: without the right to mount there is no small disk to fill");
            return;
        }
        let dev = Dev::start_behind("unshare", &["-rm", "sh", "-c", MOUNT, "sh", &mounted], directory.path());
        open_accounts(&dev, ACCOUNTS);
        let first = Transfer::number(1, ACCOUNTS);
        let answer = first.request.settle(&dev.http);
        let before = accounts(&dev);
        let seen = format!("/proc/{}/root{mounted}/ballast", dev.id());
        let ballast = PathBuf::from(seen);
        std::fs::write(&ballast, vec![0; BALLAST_BYTES]).unwrap();

        let second = Transfer::number(2, ACCOUNTS);
        let impatient = second.request.clone().header("tandem-deadline", "500ms");
        let refused = impatient.send(&dev.http).unwrap();
        assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("unavailable")), "{refused:?}");
        assert!(refused.header("retry-after").is_some() && refused.header("tandem-outcome").is_none(), "{refused:?}");
        assert!(refused.text().contains("its store takes no writes"), "{refused:?}");
        dev.wait_for("make room");
        assert_eq!(accounts(&dev), before);
        // What needs no room is still answered.
        assert_eq!(first.request.send(&dev.http).unwrap().outcome(), answer.outcome());
        let read = Request::new("GET", "/accounts/a-0").send(&dev.http).unwrap();
        assert_eq!(read.status, 200, "{read:?}");

        std::fs::remove_file(&ballast).unwrap();
        let second_answer = second.request.settle(&dev.http);
        assert!(second_answer.committed(), "{second_answer:?}");
        check_books(&dev, &[(first, answer), (second, second_answer)]);
        dev.stop();
    }
}
