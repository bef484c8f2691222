//! The network of a node: a namespace of its own, and one link to the machine.
//!
//! Rules, bridges and pods are inside. On the machine there are one interface and three routes, which end with the namespace.

use std::process::Command;

use crate::Error;
use crate::commands::run;
use crate::place::Place;

/// Inside of the namespace.
const INNER: &str = "uplink";

fn ip(arguments: &str) -> Result<String, Error> {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

/// Makes it.
pub(crate) fn up(place: &Place) -> Result<(), Error> {
    let (node, link) = (place.node(), place.link());
    let (machine, inner) = (place.machine_address(), place.node_address());
    ip(&format!("netns add {node}"))?;
    ip(&format!("-n {node} link set lo up"))?;
    ip(&format!("link add {link} type veth peer name {INNER} netns {node}"))?;
    ip(&format!("addr add {machine}/30 dev {link}"))?;
    ip(&format!("link set {link} up"))?;
    ip(&format!("-n {node} addr add {inner}/30 dev {INNER}"))?;
    ip(&format!("-n {node} link set {INNER} up"))?;
    // Nothing is forwarded there; but without a default route, nothing goes to the addresses of Services.
    ip(&format!("-n {node} route add default via {machine}"))?;
    for range in [place.services(), place.pods()] {
        ip(&format!("route add {range} via {inner} dev {link}"))?;
    }
    Ok(())
}

/// Whether the namespace is there.
pub(crate) fn is_up(place: &Place) -> bool {
    std::path::Path::new("/run/netns").join(place.node()).exists()
}

/// Removes it; nothing happens if there is none.
pub(crate) fn down(place: &Place) -> Result<(), Error> {
    // The link first: a namespace lives on for as long as a process is in it, and with it its end of the link.
    let _ = ip(&format!("link del {}", place.link()));
    if is_up(place) { ip(&format!("netns del {}", place.node())).map(drop) } else { Ok(()) }
}
