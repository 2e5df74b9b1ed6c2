//! An OCF resource agent as it stands in a hierarchy file.
//!
//! Decides how it is written, and that every mistake is told at its place. Leaves to `ha check` and [`Resource::ready`] what only the
//! agent's meta-data tell: files are read where no agent is installed.
//!
//! [`Resource::ready`]: ha_core::Resource::ready

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ha_core::hierarchy::{Fields, Value};
use ha_core::time::Span;
use serde::{Deserialize, de};

use super::{AgentName, DeepMonitor, OcfSpec, ROOT};

const AGENT: &str = "the name of an agent, such as \"ocf:heartbeat:IPaddr2\" or \"IPaddr2\"";

impl OcfSpec {
    /// Reads the fields of `Ocf(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Ocf(
    ///     name: "vip",
    ///     agent: "ocf:heartbeat:IPaddr2",  // or "heartbeat:IPaddr2", or "IPaddr2"
    ///     params: {"ip": "10.0.0.10", "cidr_netmask": 24},
    ///     deep_monitor: (level: 10, every: "1min"),
    ///     root: "/usr/lib/ocf",
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<OcfSpec> {
        let agent = fields.required_value("agent", AGENT).and_then(agent);
        let params = fields.value("params").map_or(Some(BTreeMap::new()), params);
        let deep_monitor = fields.value("deep_monitor").map_or(Some(None), |value| deep_monitor(value).map(Some));
        let root: PathBuf = fields.or("root", "the folder of agents", PathBuf::from(ROOT));
        if !root.is_absolute() {
            fields.problem("root", "the folder of agents is a whole path, from / on", None);
            return None;
        }
        Some(OcfSpec { agent: agent?, params: params?, deep_monitor: deep_monitor?, root })
    }
}

fn agent(value: Value<'_>) -> Option<AgentName> {
    let text: String = value.read(AGENT)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (provider, agent) = match parts[..] {
        [agent] => ("heartbeat", agent),
        [provider, agent] if provider != "ocf" => (provider, agent),
        ["ocf", provider, agent] => (provider, agent),
        _ => {
            value.problem(&format!("{text:?} names no agent: expected {AGENT}"), other_standard(&parts));
            return None;
        }
    };
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed)
    };
    if is_name(provider) && is_name(agent) && other_standard(&parts).is_none() {
        return Some(AgentName { provider: provider.to_owned(), agent: agent.to_owned() });
    }
    value.problem(&format!("{text:?} names no agent: expected {AGENT}"), other_standard(&parts));
    None
}

/// What stands for agents of other standards than OCF.
fn other_standard(parts: &[&str]) -> Option<String> {
    match parts {
        ["lsb", script] => Some(format!("for an init script there is `Lsb(script: {script:?})`")),
        ["systemd" | "service" | "upstart" | "stonith", ..] => {
            Some("this kind is for OCF agents only; `Process` and `Exec` run programs".to_owned())
        }
        _ => None,
    }
}

/// The parameters of an agent, by name.
pub(crate) fn params(value: Value<'_>) -> Option<BTreeMap<String, String>> {
    let expected = "a map of names and values, such as {\"ip\": \"10.0.0.10\", \"cidr_netmask\": 24}";
    let entries = value.entries(expected)?;
    let read = entries.into_iter().map(|(key, value)| {
        let name: Option<String> = key.read("the name of a parameter");
        let given: Option<Given> = value.read("a text, a number, `true` or `false`");
        let name = name?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(allowed) {
            let rule = "a parameter's name is made of a-z, A-Z, 0-9, '_' and '-'";
            key.problem(&format!("{name:?} cannot be set: {rule}"), None);
            return None;
        }
        if name.starts_with("CRM_meta_") || name == "OCF_CHECK_LEVEL" {
            let help = "see `timeouts`, `monitoring` and `deep_monitor`".to_owned();
            key.problem(&format!("{name:?} cannot be set: it is what the cluster tells the agent"), Some(help));
            return None;
        }
        let Given(text) = given?;
        if text.contains('\0') {
            value.problem("a parameter cannot hold a zero byte", None);
            return None;
        }
        Some((name, text))
    });
    // All of them are read before one that is wrong ends it: every mistake is told.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn deep_monitor(value: Value<'_>) -> Option<DeepMonitor> {
    let mut inner = value.fields("deep_monitor")?;
    let level = inner.required_value("level", "a whole number from 1, such as 10");
    let every: Option<Span> = inner.required("every", "a length of time, such as \"1min\"");
    inner.finish();
    let level: Option<u32> = level.and_then(|value| {
        let level = value.read("a whole number from 1, such as 10")?;
        if level == 0 {
            value.problem("level is 0, the ordinary monitor: expected a whole number from 1, such as 10", None);
            return None;
        }
        Some(level)
    });
    let Span(every) = every?;
    Some(DeepMonitor { level: level?, every })
}

/// A value as people write it: `24` is "24", `true` is "true".
struct Given(String);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Given;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, `true` or `false`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
                Ok(Given(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Given, E> {
                Ok(Given(truth.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Given, E> {
                Ok(Given(number.to_string()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Given, E> {
                Ok(Given(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::read;
    use std::time::Duration;

    #[test]
    fn an_agent_is_read_with_all_it_may_have() {
        let text = r#"Ocf(agent: "ocf:linbit:drbd", params: {"ip": "10.0.0.1", "cidr_netmask": 24, "arp_bg": true},
            deep_monitor: (level: 10, every: "1min"), root: "/opt/ocf")"#;
        let (found, said) = read(text, OcfSpec::read);
        assert_eq!(said, "");
        let agent = AgentName { provider: "linbit".to_owned(), agent: "drbd".to_owned() };
        let params = [("ip", "10.0.0.1"), ("cidr_netmask", "24"), ("arp_bg", "true")];
        let expected = OcfSpec {
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            deep_monitor: Some(DeepMonitor { level: 10, every: Duration::from_secs(60) }),
            root: PathBuf::from("/opt/ocf"),
            ..OcfSpec::new(agent)
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn the_provider_may_be_left_out() {
        for text in
            [r#"Ocf(agent: "Dummy")"#, r#"Ocf(agent: "heartbeat:Dummy")"#, r#"Ocf(agent: "ocf:heartbeat:Dummy")"#]
        {
            let (found, said) = read(text, OcfSpec::read);
            assert_eq!((found.unwrap().agent.to_string(), said), ("ocf:heartbeat:Dummy".to_owned(), String::new()));
        }
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let text = r#"Ocf(
            agent: "ocf:heartbeat:../../sh",
            params: {"a b": "1", "OCF_CHECK_LEVEL": 10, "ip": ["x"], "ip": "y"},
            deep_monitor: (level: 0, evry: "1min"),
            parms: {})"#;
        let (found, said) = read(text, OcfSpec::read);
        assert_eq!(found, None);
        for (line, expected) in [
            (2, "names no agent"),
            (3, "\"a b\" cannot be set"),
            (3, "see `timeouts`, `monitoring` and `deep_monitor`"),
            (3, "a text, a number, `true` or `false`"),
            (3, "here twice"),
            (4, "level is 0"),
            (4, "lacks the field `every`"),
            (4, "did you mean `every`?"),
            (5, "did you mean `params`?"),
        ] {
            assert!(said.contains(expected), "{expected} is missing in {said}");
            assert!(said.contains(&format!("web.ron:{line}:")), "nothing is told of line {line}: {said}");
        }
        let (_, said) = read(r#"Ocf(agent: "lsb:nginx")"#, OcfSpec::read);
        assert!(said.contains(r#"`Lsb(script: "nginx")`"#), "{said}");
    }
}
