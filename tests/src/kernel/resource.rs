//! Resources as production touches them, in a guest: the program `lab-resource`, which does one operation and tells what came of it.
//!
//! `lab-resource OPERATION LIMIT_MS RESOURCE`, where the resource is written as in a hierarchy file: `Lvm(name: "x", group: "shop")`.

use std::time::Duration;

use ha_core::driver::{Context, Found, Verdict};
use ha_core::hierarchy::{Source, read_sources};
use ha_core::name::{Epoch, HierarchyName, NodeName};
use ha_resources::kinds::Builtin;
use ha_resources::resource::Directories;

use super::guest::Guest;
use crate::lab::program;
use crate::trouble::{Result, Trouble, While as _};

/// Has a node do an operation on a resource, and returns what came of it: "done", "good", "running", "failed: …", "bad: …".
pub fn operate(node: &Guest, operation: &str, resource: &str) -> Result<String> {
    operate_within(node, operation, Duration::from_secs(30), resource)
}

/// The same with another time to do it in.
pub fn operate_within(node: &Guest, operation: &str, limit: Duration, resource: &str) -> Result<String> {
    let own = program("lab-resource")?.to_string_lossy().into_owned();
    let said = node.run(&own, &[operation, &limit.as_millis().to_string(), resource])?.good()?;
    Ok(said.trim().to_owned())
}

/// The same, where it is known what comes of it: all of it, or some words of it.
pub fn expect(node: &Guest, operation: &str, resource: &str, expected: &str) -> Result<()> {
    let said = operate(node, operation, resource)?;
    eprintln!("{} {operation}: {said}", node.name());
    if said.contains(expected) && (expected.contains(' ') || said == expected) {
        return Ok(());
    }
    Err(Trouble::new(format!("{operation} of {resource} on {}: expected {expected}, and it said: {said}", node.name())))
}

/// Runs the program.
pub fn run(arguments: &[&str]) -> Result<String> {
    let [operation, limit, resource] = arguments else {
        return Err(Trouble::new("usage: lab-resource OPERATION LIMIT_MS RESOURCE"));
    };
    let timeout =
        limit.parse().map(Duration::from_millis).map_err(|error| Trouble::new(format!("{limit}: {error}")))?;
    let text =
        format!("Hierarchy(name: \"lab\", nodes: [\"lab\"], claim: LockArea(\"main\"), resources: [\n{resource}\n])");
    let mut reading = read_sources(&[Source::new("lab.ron", text)], &Builtin);
    let complaints = reading.diagnostics.to_string();
    let (Some(mut loaded), "") = (reading.loaded.pop(), complaints.as_str()) else {
        return Err(Trouble::new(complaints));
    };
    let definition = loaded.resources.pop().ok_or_else(|| Trouble::new("no resource was given"))?;
    let spec = loaded.hierarchy.resources.first().ok_or_else(|| Trouble::new("no resource was given"))?;
    let wrong = |error: &dyn std::fmt::Display| Trouble::new(error.to_string());
    let context = Context {
        node: NodeName::new("lab").map_err(|e| wrong(&e))?,
        hierarchy: HierarchyName::new("lab").map_err(|e| wrong(&e))?,
        resource: spec.name.clone(),
        epoch: Epoch(1),
        timeout,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().to("make a runtime")?;
    runtime.block_on(async {
        let directories = Directories::new("/run/ha", "/run/lab/log");
        if *operation == "advice" {
            let advice = definition.advice(spec, &directories).await;
            return Ok(advice.iter().map(|one| one.what.clone()).collect::<Vec<_>>().join("\n"));
        }
        let resource = definition.build(&directories);
        let done = match *operation {
            "start" => resource.start(&context).await.map(|()| "done"),
            "stop" => resource.stop(&context).await.map(|()| "done"),
            "kill" => resource.kill(&context).await.map(|()| "done"),
            "ready" => resource.ready().await.map(|()| "done"),
            "adopt" => resource.adopt(&context).await.map(|found| match found {
                Found::Running => "running",
                Found::Stopped => "stopped",
            }),
            "monitor" => {
                return Ok(match resource.monitor(&context).await {
                    Verdict::Good => "good".to_owned(),
                    Verdict::Bad(why) => format!("bad: {why}"),
                    Verdict::Unknown(why) => format!("unknown: {why}"),
                });
            }
            // As an agent does that finds it running.
            "watch" => match resource.adopt(&context).await {
                Ok(Found::Running) => return Ok(resource.watch(&context).await),
                other => return Ok(format!("failed: there is nothing to watch: {other:?}")),
            },
            // What it tells first, or nothing within the time.
            "defects" => {
                let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
                let tell = move |what: Option<String>| drop(told.send(what));
                resource.adopt(&context).await.map_err(|failed| wrong(&failed))?;
                return Ok(tokio::select! {
                    first = hears.recv() => first.flatten().unwrap_or_else(|| "none".to_owned()),
                    () = resource.defects(&tell) => "nothing was told".to_owned(),
                    () = tokio::time::sleep(timeout) => "nothing was told".to_owned(),
                });
            }
            _ => return Err(Trouble::new(format!("there is no operation {operation}"))),
        };
        Ok(done.map_or_else(|failed| format!("failed: {}", failed.0), str::to_owned))
    })
}
