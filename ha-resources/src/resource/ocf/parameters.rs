//! Whether an operator's parameters fit an OCF agent's meta-data.
//!
//! Decides what is a mistake: a name that the agent does not know, one that is lacking, a value of another type. Real agents
//! mislabel some of theirs, so a type that the agent's own default contradicts is not believed.

use std::collections::BTreeMap;

use ha_core::hierarchy::suggest;

use super::meta_data::{Kind, MetaData, Parameter, time};

/// More names than this are not listed in a message.
const LISTED: usize = 30;

/// What is wrong with parameters, each a sentence; empty if nothing is.
pub(crate) fn mistakes(meta: &MetaData, given: &BTreeMap<String, String>) -> Vec<String> {
    let unknown = given.keys().filter(|name| find(meta, name).is_none()).map(|name| unknown(meta, name));
    let lacking = meta.parameters.iter().filter_map(|parameter| lacking(meta, parameter, given));
    let misfits = given.iter().filter_map(|(name, value)| misfit(find(meta, name)?, value));
    unknown.chain(lacking).chain(misfits).collect()
}

/// Which of them are to be used no more, each a sentence.
pub(crate) fn outdated(meta: &MetaData, given: &BTreeMap<String, String>) -> Vec<String> {
    let deprecated = given.keys().filter_map(|name| Some((name, find(meta, name)?.deprecated.as_ref()?)));
    deprecated
        .map(|(name, instead)| match instead.as_slice() {
            [] => format!("its parameter `{name}` is deprecated"),
            _ => format!("its parameter `{name}` is deprecated: use {}", names(instead.iter())),
        })
        .collect()
}

/// Which of them name a file for a pid that is still there after a loss of power, each a sentence. Agents believe that a program runs as soon as any
/// program has the number in it: it is started nowhere, and found good.
pub(crate) fn lasting_pid_files(given: &BTreeMap<String, String>) -> Vec<String> {
    let gone_with_power = |path: &str| ["/run/", "/var/run/", "/dev/shm/"].iter().any(|place| path.starts_with(place));
    let lasting =
        given.iter().filter(|(name, path)| name.contains("pid") && path.starts_with('/') && !gone_with_power(path));
    lasting
        .map(|(name, path)| {
            format!(
                "its parameter `{name}` is {path:?}, which outlives a loss of power: the number in it may be another program's then, and the agent \
                 would believe that its own runs"
            )
        })
        .collect()
}

fn find<'a>(meta: &'a MetaData, name: &str) -> Option<&'a Parameter> {
    meta.parameters.iter().find(|parameter| parameter.name == name)
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<String> = all.map(|name| format!("`{name}`")).collect();
    match all.len().saturating_sub(LISTED) {
        0 => all.join(", "),
        more => format!("{} and {more} more", all[..LISTED].join(", ")),
    }
}

fn unknown(meta: &MetaData, name: &str) -> String {
    if meta.parameters.is_empty() {
        return format!("it has no parameters, and `{name}` is given");
    }
    let known = || meta.parameters.iter().map(|parameter| &parameter.name);
    match suggest(name, known().map(String::as_str)) {
        Some(meant) => format!("it has no parameter `{name}`; {meant}"),
        None => format!("it has no parameter `{name}`: expected one of {}", names(known())),
    }
}

fn lacking(meta: &MetaData, parameter: &Parameter, given: &BTreeMap<String, String>) -> Option<String> {
    let stands_in = |old: &String| {
        find(meta, old).and_then(|old| old.deprecated.as_ref()).is_some_and(|new| new.contains(&parameter.name))
    };
    let is_given = given.contains_key(&parameter.name) || given.keys().any(stands_in);
    let has_default = parameter.default.as_ref().is_some_and(|default| !default.is_empty());
    let lacking = parameter.required && parameter.deprecated.is_none() && !is_given && !has_default;
    lacking.then(|| format!("its parameter `{}` is required", parameter.name))
}

fn misfit(parameter: &Parameter, value: &str) -> Option<String> {
    let default = parameter.default.as_deref().unwrap_or_default();
    let believed = default.is_empty() || parameter.kind.fits(default);
    if !believed || parameter.kind.fits(value) || value == default {
        return None;
    }
    Some(format!("its parameter `{}` is {value:?}: expected {}", parameter.name, parameter.kind.expected()))
}

impl Kind {
    fn fits(&self, value: &str) -> bool {
        let value = value.trim();
        match self {
            Kind::Text => true,
            Kind::Integer => value.parse::<i128>().is_ok(),
            Kind::Boolean => {
                let known = ["true", "false", "yes", "no", "on", "off", "1", "0", "y", "n", "t", "f", "ja", "nein"];
                known.contains(&value.to_ascii_lowercase().as_str())
            }
            Kind::Time => time(value).is_some(),
            Kind::Select(options) => options.is_empty() || options.iter().any(|option| option == value),
        }
    }

    fn expected(&self) -> String {
        match self {
            Kind::Text => "a text".to_owned(),
            Kind::Integer => "a whole number".to_owned(),
            Kind::Boolean => "\"true\" or \"false\"".to_owned(),
            Kind::Time => "a length of time such as \"20s\"".to_owned(),
            Kind::Select(options) => format!("one of {}", names(options.iter())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, kind: Kind, default: &str) -> Parameter {
        let default = Some(default.to_owned()).filter(|default| !default.is_empty());
        Parameter { name: name.to_owned(), required: false, kind, default, deprecated: None }
    }

    fn agent() -> MetaData {
        let required = |parameter| Parameter { required: true, ..parameter };
        MetaData {
            parameters: vec![
                required(parameter("ip", Kind::Text, "")),
                Parameter { deprecated: Some(vec!["ip".to_owned()]), ..parameter("addr", Kind::Text, "") },
                required(parameter("nic", Kind::Text, "eth0")),
                parameter("cidr_netmask", Kind::Integer, ""),
                parameter("arp_bg", Kind::Boolean, "true"),
                parameter("wait", Kind::Time, "5s"),
                parameter("mode", Kind::Select(vec!["a".to_owned(), "b".to_owned()]), "a"),
                parameter("port", Kind::Boolean, "5672"),
            ],
            ..MetaData::default()
        }
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_mistake_is_told_and_what_was_meant() {
        let wrong = [("ipp", "x"), ("cidr_netmask", "big"), ("arp_bg", "maybe"), ("wait", "soon"), ("mode", "c")];
        let told = mistakes(&agent(), &given(&wrong));
        assert_eq!(
            told,
            [
                "it has no parameter `ipp`; did you mean `ip`?",
                "its parameter `ip` is required",
                "its parameter `arp_bg` is \"maybe\": expected \"true\" or \"false\"",
                "its parameter `cidr_netmask` is \"big\": expected a whole number",
                "its parameter `mode` is \"c\": expected one of `a`, `b`",
                "its parameter `wait` is \"soon\": expected a length of time such as \"20s\"",
            ]
        );
        let told = mistakes(&agent(), &given(&[("ip", "x"), ("somethingelse", "1")]));
        assert!(told[0].contains("expected one of `ip`, `addr`, `nic`"), "{told:?}");
        let told = mistakes(&MetaData::default(), &given(&[("x", "1")]));
        assert_eq!(told, ["it has no parameters, and `x` is given"]);
    }

    #[test]
    fn what_fits_is_not_complained_of() {
        let right = [
            ("ip", "10.0.0.1"),
            ("cidr_netmask", "24"),
            ("arp_bg", "NO"),
            ("wait", "2min"),
            ("mode", "b"),
            ("port", "1"),
        ];
        assert_eq!(mistakes(&agent(), &given(&right)), Vec::<String>::new());
        // The agent calls its port a truth value, and contradicts itself.
        assert_eq!(mistakes(&agent(), &given(&[("ip", "x"), ("port", "25672")])), Vec::<String>::new());
    }

    #[test]
    fn a_deprecated_parameter_stands_in_and_is_named() {
        let old = given(&[("addr", "10.0.0.1")]);
        assert_eq!(mistakes(&agent(), &old), Vec::<String>::new());
        assert_eq!(outdated(&agent(), &old), ["its parameter `addr` is deprecated: use `ip`"]);
    }

    #[test]
    fn a_pid_file_that_outlives_a_loss_of_power_is_named() {
        let told = |path| lasting_pid_files(&given(&[("pid", path), ("datadir", "/srv/orders/data")]));
        let lasting = told("/srv/orders/data/mariadb.pid");
        assert!(lasting.len() == 1 && lasting[0].contains("`pid` is \"/srv/orders/data/mariadb.pid\""), "{lasting:?}");
        for path in ["/run/orders/mariadb.pid", "/var/run/mysqld/mysqld.pid", "4711"] {
            assert_eq!(told(path), Vec::<String>::new());
        }
    }
}
