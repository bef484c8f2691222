//! Checks what user code wants applied, and turns its names into rows.

use bytes::Bytes;
use tandem_model::flow::{Effects, Emission, OutgoingMessage};
use tandem_model::ids::{EgressName, HandlerName, Instance, Payload, StateName};
use tandem_model::limits::{ENTRY_KEY_BYTES_MAX, SEND_DELAY_MS_MAX};
use tandem_model::topology::{StateKind, ValueType};
use tandem_store::Store;

use super::attempt::{Attempt, Broken};
use crate::host::{Effect, Interface};

impl<S: Store> Attempt<'_, S> {
    /// The effects of a handler that returned.
    pub(super) fn effects(
        &self,
        instance: &Instance,
        interface: Option<&Interface>,
        effects: Vec<Effect>,
    ) -> Result<Effects, Broken> {
        let mut checked = Effects::default();
        for effect in effects {
            match effect {
                Effect::Write { state, entry, value } => {
                    checked.writes.push((self.write_row(instance, interface, &state, entry, value.as_ref())?, value));
                }
                Effect::Send { function, key, handler, payload, delay_ms } => {
                    let (to, handler) = self.check_target(instance, &function, &key, &handler)?;
                    self.check_payload(instance, "the payload of a send", payload.len())?;
                    if delay_ms > SEND_DELAY_MS_MAX {
                        let detail = format!("a send may wait {SEND_DELAY_MS_MAX} ms at most, not {delay_ms}");
                        return Err(Broken::fatal("send-delay", detail, instance));
                    }
                    let (from, payload) = (instance.clone(), Payload::json(payload));
                    checked.messages.push(OutgoingMessage { from, to, handler, payload, delay_ms });
                }
                Effect::Emit { egress, payload } => {
                    let name: Option<EgressName> = egress.parse().ok();
                    let known = name.filter(|name| self.topology.egresses.contains_key(name));
                    let Some(egress) = known else {
                        return Err(Broken::fatal(
                            "unknown-egress",
                            format!("egress {egress:?} does not exist"),
                            instance,
                        ));
                    };
                    self.check_payload(instance, "an egress record", payload.len())?;
                    checked.emissions.push(Emission { egress, payload });
                }
            }
        }
        Ok(checked)
    }

    fn write_row(
        &self,
        instance: &Instance,
        interface: Option<&Interface>,
        state: &str,
        entry: Option<Bytes>,
        value: Option<&Bytes>,
    ) -> Result<Bytes, Broken> {
        let (name, kind) = self.state(instance, interface, state)?;
        let wrong_kind = |detail: String| Err(Broken::fatal("state-kind", detail, instance));
        let layout = self.engine.layout;
        let row = match (kind, entry) {
            (StateKind::Value, None) => layout.state_value(instance, &name),
            (StateKind::Map, Some(entry)) => {
                check_entry_key(instance, &name, &entry)?;
                layout.state_entry(instance, &name, &entry)
            }
            (StateKind::Value, Some(_)) => return wrong_kind(format!("state {name} is a value, it has no entries")),
            (StateKind::Map, None) => return wrong_kind(format!("state {name} is a map, a write needs an entry key")),
        };
        if let Some(value) = value {
            self.check_value(instance, &name, value)?;
        }
        Ok(row)
    }

    /// The state of a function by its name.
    pub(super) fn state(
        &self,
        instance: &Instance,
        interface: Option<&Interface>,
        state: &str,
    ) -> Result<(StateName, StateKind), Broken> {
        let pinned = self.topology.functions.get(&instance.function).and_then(|function| function.states.as_ref());
        let name: Option<StateName> = state.parse().ok();
        let found = name.and_then(|name| {
            let pinned_kind = pinned.map(|states| states.get(&name).map(|state| state.kind));
            let told = || interface.and_then(|interface| interface.states.get(&name).copied());
            pinned_kind.unwrap_or_else(told).map(|kind| (name, kind))
        });
        let detail = || format!("function {} has no state {state:?}", instance.function);
        found.ok_or_else(|| Broken::fatal("unknown-state", detail(), instance))
    }

    fn check_value(&self, instance: &Instance, state: &StateName, value: &Bytes) -> Result<(), Broken> {
        let max = self.topology.limits.value_bytes_max;
        if value.len() > max {
            let detail = format!("a value of state {state} has {} bytes, at most {max} are allowed", value.len());
            return Err(Broken::fatal("value-too-large", detail, instance));
        }
        let function = self.topology.functions.get(&instance.function);
        let declared = function.and_then(|function| function.states.as_ref()).and_then(|states| states.get(state));
        let value_type = declared.map_or(ValueType::Any, |state| state.value_type);
        if !is_of_type(value, value_type) {
            let detail = format!("a value of state {state} is not of its declared type {value_type:?}");
            return Err(Broken::fatal("state-type", detail, instance));
        }
        Ok(())
    }

    pub(super) fn check_payload(&self, instance: &Instance, what: &str, bytes: usize) -> Result<(), Broken> {
        let max = self.topology.limits.payload_bytes_max;
        if bytes > max {
            let detail = format!("{what} has {bytes} bytes, at most {max} are allowed");
            return Err(Broken::fatal("payload-too-large", detail, instance));
        }
        Ok(())
    }

    /// Whom a call or send addresses, if the caller may and it exists.
    pub(super) fn check_target(
        &self,
        caller: &Instance,
        function: &str,
        key: &str,
        handler: &str,
    ) -> Result<(Instance, HandlerName), Broken> {
        let unknown = |detail: String| Broken::fatal("unknown-function", detail, caller);
        let target =
            Instance::parse(function, key).map_err(|error| Broken::fatal("invalid-key", error.to_string(), caller))?;
        let Some(declared) = self.topology.functions.get(&target.function) else {
            return Err(unknown(format!("function {function:?} does not exist")));
        };
        if declared.callers.as_ref().is_some_and(|callers| !callers.contains(&caller.function)) {
            let detail = format!("function {function} does not list {} among its callers", caller.function);
            return Err(Broken::fatal("caller-not-allowed", detail, caller));
        }
        let unknown_handler = |detail: String| Broken::fatal("unknown-handler", detail, caller);
        let name: HandlerName = handler.parse().map_err(|error| unknown_handler(format!("{error}")))?;
        if let Some(interface) = self.engine.host.interface(&target.function)
            && !interface.handlers.contains_key(&name)
        {
            return Err(unknown_handler(format!("function {function} has no handler {handler:?}")));
        }
        Ok((target, name))
    }
}

pub(super) fn check_entry_key(instance: &Instance, state: &StateName, entry: &Bytes) -> Result<(), Broken> {
    if entry.is_empty() || entry.len() > ENTRY_KEY_BYTES_MAX {
        let bytes = entry.len();
        let detail = format!("an entry key of state {state} must have 1 to {ENTRY_KEY_BYTES_MAX} bytes, not {bytes}");
        return Err(Broken::fatal("entry-key", detail, instance));
    }
    Ok(())
}

fn is_of_type(value: &Bytes, value_type: ValueType) -> bool {
    use serde_json::Value;
    if value_type == ValueType::Any {
        return true;
    }
    let Ok(value) = serde_json::from_slice::<Value>(value) else { return false };
    match value_type {
        ValueType::Any => true,
        ValueType::Integer => value.is_i64() || value.is_u64(),
        ValueType::Number => value.is_number(),
        ValueType::String => value.is_string(),
        ValueType::Boolean => value.is_boolean(),
        ValueType::Object => value.is_object(),
        ValueType::Array => value.is_array(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_held() {
        let check = |text: &'static str, value_type, expected| {
            assert_eq!(is_of_type(&Bytes::from_static(text.as_bytes()), value_type), expected, "{text}");
        };
        check("1", ValueType::Integer, true);
        check("1.5", ValueType::Integer, false);
        check("1.5", ValueType::Number, true);
        check("\"1\"", ValueType::Integer, false);
        check("not json", ValueType::Any, true);
        check("not json", ValueType::String, false);
    }
}
