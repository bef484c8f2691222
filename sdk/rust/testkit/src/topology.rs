//! The topology that resources would give: one function each, with the worker of the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tandem::generated::{Descriptor, FieldKind, Isolation};
use tandem_model::ids::InvalidName;
use tandem_model::limits::Limits;
use tandem_model::slot::SlotCount;
use tandem_model::topology::{
    Egress, Endpoint, Function, Handler, Isolation as Declared, Protocol, State, StateKind, Topology, ValueType,
};

/// A topology of these functions, all served at `address`.
pub(crate) fn of(
    descriptors: &[Descriptor],
    egresses: &[String],
    limits: Limits,
    address: SocketAddr,
) -> Result<Topology, InvalidName> {
    let mut topology = Topology {
        format: Topology::FORMAT,
        slots: SlotCount::DEFAULT,
        limits,
        retention_ms: Topology::RETENTION_MS,
        ..Topology::default()
    };
    let endpoint = Endpoint::new(format!("http://{address}"), Protocol::Grpc);
    for descriptor in descriptors {
        topology.functions.insert(descriptor.name.parse()?, function(descriptor, endpoint.clone())?);
    }
    for egress in egresses {
        topology.egresses.insert(egress.parse()?, Egress { stream_retention_ms: Topology::RETENTION_MS });
    }
    Ok(topology)
}

fn function(descriptor: &Descriptor, endpoint: Endpoint) -> Result<Function, InvalidName> {
    let mut handlers = BTreeMap::new();
    for handler in descriptor.handlers {
        let isolation = match handler.isolation {
            Isolation::AsDeclared | Isolation::Serializable => Declared::Serializable,
            Isolation::Snapshot => Declared::Snapshot,
            Isolation::ReadOnly => Declared::ReadOnly,
        };
        handlers.insert(handler.name.parse()?, Handler { isolation, timeout_ms: None });
    }
    let mut states = BTreeMap::new();
    for field in descriptor.fields {
        let kind = match field.kind {
            FieldKind::Value => StateKind::Value,
            FieldKind::Map => StateKind::Map,
        };
        states.insert(field.name.parse()?, State { kind, value_type: ValueType::Any });
    }
    // Pinned down, so that a request need not wait for the handshake to know whether its handler exists.
    let (handlers, states) = (Some(handlers), Some(states));
    Ok(Function { workers: vec![endpoint], handlers, states, ..Function::default() })
}
