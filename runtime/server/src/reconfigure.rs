//! What a change of the configuration file means for a process that runs: new endpoints of PD count at once, since a
//! cluster may move while nothing else does; everything else counts from the next start on.

use tracing::{info, warn};

use crate::flags::Flags;
use crate::process::chain;
use crate::settings::{self, Settings};
use crate::store::Location;
use crate::watch::Watch;

/// Tells an open store where PD is now.
pub type SetEndpoints = Box<dyn Fn(&[String]) + Send + Sync>;

/// The file, and what of it counts now.
pub struct Reconfigure<'process> {
    flags: &'process Flags,
    settings: Settings,
    watch: Watch,
    set_endpoints: SetEndpoints,
}

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Endpoints(Vec<String>),
    /// More than can be changed while it runs.
    Restart,
}

impl<'process> Reconfigure<'process> {
    /// Begins with what the process was started with.
    pub fn new(flags: &'process Flags, settings: &Settings, set_endpoints: SetEndpoints) -> Self {
        let watch = Watch::new(flags.config.as_slice());
        Self { flags, settings: settings.clone(), watch, set_endpoints }
    }

    /// Returns when the file has changed. Dropping it loses no change.
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }

    /// Applies what can be applied, and says what cannot. A file that is wrong changes nothing.
    pub fn apply(&mut self) {
        let now = match settings::read(self.flags) {
            Ok(now) => now,
            Err(error) => {
                warn!(error = %chain(&error), "the configuration is wrong; what runs goes on unchanged");
                return;
            }
        };
        match change(&self.settings, &now) {
            Change::Nothing => {}
            Change::Endpoints(endpoints) => {
                info!(endpoints = endpoints.join(","), "endpoints of PD changed");
                (self.set_endpoints)(&endpoints);
                self.settings = now;
            }
            Change::Restart => warn!("the configuration changed; it takes effect at the next start"),
        }
    }
}

fn change(before: &Settings, now: &Settings) -> Change {
    if before == now {
        return Change::Nothing;
    }
    let (Location::Tikv(_), Location::Tikv(tikv)) = (&before.store, &now.store) else { return Change::Restart };
    let mut moved = before.clone();
    if let Location::Tikv(before) = &mut moved.store {
        before.endpoints.clone_from(&tikv.endpoints);
    }
    if moved == *now { Change::Endpoints(tikv.endpoints.clone()) } else { Change::Restart }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use clap::Parser as _;

    use super::*;

    fn file(endpoints: &str, prefix: &str) -> String {
        format!(
            "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\n\
             store: {{tikv: {{endpoints: [{endpoints}], prefix: {prefix}}}}}\ntopology: {{resources: [.]}}\n"
        )
    }

    #[test]
    fn endpoints_count_at_once_and_nothing_else_does() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("runtime.yaml");
        let write = |text: &str| fs::write(&path, text).expect("there is room");
        write(&file("'pd-0:2379'", "shop"));
        let flags = Flags::parse_from(["tandem-runtime".as_ref(), "--config".as_ref(), path.as_os_str()]);
        let settings = settings::read(&flags).expect("nothing is wrong with it");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = told.clone();
        let set_endpoints: SetEndpoints =
            Box::new(move |endpoints| *tell.lock().expect("nobody panics") = endpoints.to_vec());
        let mut reconfigure = Reconfigure::new(&flags, &settings, set_endpoints);
        let told_after = |reconfigure: &mut Reconfigure<'_>, text: &str| {
            write(text);
            reconfigure.apply();
            std::mem::take(&mut *told.lock().expect("nobody panics"))
        };
        assert!(told_after(&mut reconfigure, &file("'pd-0:2379'", "shop")).is_empty(), "nothing has changed");
        assert!(told_after(&mut reconfigure, "store: [").is_empty(), "it is wrong");
        assert!(told_after(&mut reconfigure, &file("'pd-1:2379'", "other")).is_empty(), "another installation");
        assert_eq!(told_after(&mut reconfigure, &file("'pd-1:2379'", "shop")), ["pd-1:2379"]);
        assert!(told_after(&mut reconfigure, &file("'pd-1:2379'", "shop")).is_empty(), "it is known by now");
    }
}
