//! What the API server says before it lets resources in, when it asks the operator.

use anyhow::ensure;

use crate::kube::{eventually, kubectl, test};
use crate::site::{self, START_WITHIN};

const FUNCTION: &str = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\n\
                        spec: {image: 'localhost/none:1', handlers: [{name: place}]}\n";

fn route(function: &str, key: &str) -> String {
    format!(
        "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: place}}\n\
         spec: {{http: {{method: POST, path: '/o/{{id}}'}}, to: {{function: {function}, handler: place}}, key: {key}}}\n"
    )
}

#[test]
fn what_can_never_work_is_refused_and_what_may_still_come_is_a_warning() -> anyhow::Result<()> {
    test("admission", &[], |namespace| {
        site::install_with(site::NAMESPACE, &["webhook.enabled=true"])?;
        namespace.apply(FUNCTION)?;
        // The certificate takes a moment; until then everything is let in.
        eventually("refusal", START_WITHIN, || {
            let Err(refusal) = namespace.apply(&route("order", "request.path.nobody")) else {
                namespace.kubectl(&["delete", "functionroute", "place"])?;
                anyhow::bail!("it was let in");
            };
            ensure!(format!("{refusal:#}").contains("E110"), "it was refused for another reason: {refusal:#}");
            Ok(())
        })?;
        let mut apply = kubectl();
        apply.args(["--namespace", &namespace.name, "apply", "--filename", "-"]);
        let said = said(&mut apply, &route("missing", "request.path.id"))?;
        ensure!(said.contains("Warning: not served yet: E104"), "{said}");
        namespace.apply(&route("order", "request.path.id"))?;
        site::install_with(site::NAMESPACE, &["webhook.enabled=false"])
    })
}

/// What a command that works writes for people.
fn said(command: &mut std::process::Command, input: &str) -> anyhow::Result<String> {
    use std::io::Write as _;
    use std::process::Stdio;

    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(said)
}
