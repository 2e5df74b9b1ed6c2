//! What an OCF agent, or a fence agent, says of itself: its parameters and its actions, as XML.
//!
//! Source: the Open Cluster Framework's resource agent API 1.0 and 1.1 (`ra-api-1.dtd`, `metadata.rng`), whose form the fence agents' API
//! has taken over. Decides how lenient the reading is: what an agent leaves out or adds is no error, only what is not XML, or not of an
//! agent. Leaves the comparison with an operator's parameters to [`super::parameters`].

use std::time::Duration;

use roxmltree::{Document, Node, ParsingOptions};

/// More elements than any agent has: a bound on the memory that reading takes.
const NODES: u32 = 100_000;

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetaData {
    /// Its parameters, in its order.
    pub(crate) parameters: Vec<Parameter>,
    /// Its actions, in its order.
    pub(crate) actions: Vec<Action>,
    /// Whether it is to be used no more (API 1.1).
    pub(crate) is_deprecated: bool,
}

/// One parameter of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name.
    pub(crate) name: String,
    /// Whether the agent cannot do without it.
    pub(crate) required: bool,
    /// What its values look like.
    pub(crate) kind: Kind,
    /// What it is where nothing is given.
    pub(crate) default: Option<String>,
    /// Set where it is to be used no more: what stands in for it, if anything does (API 1.1).
    pub(crate) deprecated: Option<Vec<String>>,
}

/// What the values of a parameter look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text; also every type that is not known.
    Text,
    /// A whole number.
    Integer,
    /// Yes or no.
    Boolean,
    /// A length of time ("time" and "second").
    Time,
    /// One of these (API 1.1).
    Select(Vec<String>),
}

/// One action of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// Its name, such as "start".
    pub(crate) name: String,
    /// The least time that the agent advises for it.
    pub(crate) timeout: Option<Duration>,
    /// How often it should run, of a monitor.
    pub(crate) interval: Option<Duration>,
    /// How deep it looks, of a monitor.
    pub(crate) depth: u32,
    /// In which role it is meant, of a monitor.
    pub(crate) role: Option<String>,
}

/// Meta-data that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetaDataError {
    /// It is not XML.
    #[error("its meta-data are not XML ({0})")]
    NotXml(String),
    /// It is XML of something else.
    #[error(
        "its meta-data are not those of a resource agent: the outermost element is <{0}>, expected <resource-agent>"
    )]
    NotAnAgent(String),
}

impl MetaData {
    /// Reads what an agent wrote for `meta-data`.
    pub(crate) fn parse(text: &str) -> Result<MetaData, MetaDataError> {
        // A few bytes could stand for gigabytes.
        if text.contains("<!ENTITY") {
            return Err(MetaDataError::NotXml("it declares entities, which no agent needs".to_owned()));
        }
        let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES, ..ParsingOptions::default() };
        let document =
            Document::parse_with_options(text.trim(), options).map_err(|e| MetaDataError::NotXml(e.to_string()))?;
        let root = document.root_element();
        if root.tag_name().name() != "resource-agent" {
            return Err(MetaDataError::NotAnAgent(root.tag_name().name().chars().take(60).collect()));
        }
        let named = |list: &str, element: &'static str| {
            let lists: Vec<Node<'_, '_>> = children(root, list).collect();
            lists.into_iter().flat_map(move |list| children(list, element)).collect::<Vec<_>>()
        };
        let elements = named("parameters", "parameter");
        let mut parameters: Vec<Parameter> = elements.iter().copied().filter_map(parameter).collect();
        // So fence agents say what stands in for a deprecated one.
        for (old, new) in elements.iter().filter_map(|node| node.attribute("obsoletes").zip(node.attribute("name"))) {
            let replaced = parameters.iter_mut().find(|parameter| parameter.name == old && old != new);
            if let Some(instead) = replaced.and_then(|parameter| parameter.deprecated.as_mut()) {
                instead.push(new.to_owned());
            }
        }
        Ok(MetaData {
            parameters,
            actions: named("actions", "action").into_iter().filter_map(action).collect(),
            is_deprecated: children(root, "deprecated").next().is_some(),
        })
    }

    /// The action of this name (the first, of several monitors).
    pub(crate) fn action(&self, name: &str) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == name)
    }

    /// The monitors that look deeper than the ordinary one.
    pub(crate) fn deep_monitors(&self) -> impl Iterator<Item = &Action> {
        self.actions.iter().filter(|action| action.name == "monitor" && action.depth > 0)
    }
}

fn children<'a, 'i>(of: Node<'a, 'i>, name: &str) -> impl Iterator<Item = Node<'a, 'i>> {
    of.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

fn parameter(node: Node<'_, '_>) -> Option<Parameter> {
    let content = children(node, "content").next();
    let of_content = |name: &str| content.and_then(|content| content.attribute(name));
    let kind = match of_content("type") {
        Some("integer") => Kind::Integer,
        Some("boolean") => Kind::Boolean,
        Some("time" | "second") => Kind::Time,
        Some("select") => {
            let options = content.into_iter().flat_map(|content| children(content, "option").collect::<Vec<_>>());
            Kind::Select(options.filter_map(|option| option.attribute("value")).map(str::to_owned).collect())
        }
        _ => Kind::Text,
    };
    let replacements = |deprecated: Node<'_, '_>| {
        children(deprecated, "replaced-with").filter_map(|with| with.attribute("name")).map(str::to_owned).collect()
    };
    let flagged = is_true(node.attribute("deprecated")).then(Vec::new);
    Some(Parameter {
        name: node.attribute("name").filter(|name| !name.is_empty())?.to_owned(),
        required: is_true(node.attribute("required")),
        kind,
        default: of_content("default").map(str::to_owned),
        deprecated: children(node, "deprecated").next().map(replacements).or(flagged),
    })
}

fn action(node: Node<'_, '_>) -> Option<Action> {
    Some(Action {
        name: node.attribute("name").filter(|name| !name.is_empty())?.to_owned(),
        timeout: node.attribute("timeout").and_then(time),
        interval: node.attribute("interval").and_then(time).filter(|interval| !interval.is_zero()),
        depth: node.attribute("depth").and_then(|depth| depth.trim().parse().ok()).unwrap_or(0),
        role: node.attribute("role").map(str::to_owned),
    })
}

fn is_true(attribute: Option<&str>) -> bool {
    matches!(attribute, Some("1" | "true" | "yes"))
}

/// A length of time as cluster managers take it: a whole number, then `us`, `ms`, `s` (also left out), `m`, `min`, `h` or `hr`.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match text[digits..].trim().to_ascii_lowercase().as_str() {
        "us" | "usec" => Some(Duration::from_micros(number)),
        "ms" | "msec" => Some(Duration::from_millis(number)),
        "" | "s" | "sec" => seconds(1),
        "m" | "min" => seconds(60),
        "h" | "hr" => seconds(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH_VERSIONS: &str = r#"
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="thing" version="1.0">
<version>1.1</version>
<longdesc lang="en">Serves &lt;things&gt;</longdesc>
<parameters>
  <parameter name="ip" unique="1" required="1"><longdesc lang="en">x</longdesc><content type="string"/></parameter>
  <parameter name="port"><content type="integer" default="80"/></parameter>
  <parameter name="wait"><content type="second" default="5s"/></parameter>
  <parameter name="fast"><content type="boolean" default="no"/></parameter>
  <parameter name="mode"><content type="select"><option value="a"/><option value="b"/></content></parameter>
  <parameter name="addr"><deprecated><replaced-with name="ip"/><desc lang="en">old</desc></deprecated><content type="string"/></parameter>
  <parameter name="older" deprecated="1"><content type="whatever"/></parameter>
  <parameter><content type="string"/></parameter>
</parameters>
<actions>
  <action name="start" timeout="1m"/>
  <action name="monitor" depth="0" timeout="20" interval="10s"/>
  <action name="monitor" depth="10" timeout="30s" interval="60000ms" role="Promoted"/>
  <action name="meta-data" timeout="soon"/>
</actions>
</resource-agent>
"#;

    #[test]
    fn what_agents_of_both_versions_say_is_read() {
        let read = MetaData::parse(BOTH_VERSIONS).unwrap();
        let names: Vec<&str> = read.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["ip", "port", "wait", "fast", "mode", "addr", "older"]);
        let kinds: Vec<&Kind> = read.parameters.iter().map(|p| &p.kind).collect();
        let select = Kind::Select(vec!["a".to_owned(), "b".to_owned()]);
        let expected = [&Kind::Text, &Kind::Integer, &Kind::Time, &Kind::Boolean, &select, &Kind::Text, &Kind::Text];
        assert_eq!(kinds, expected);
        assert!(read.parameters[0].required && !read.parameters[1].required);
        assert_eq!(read.parameters[1].default.as_deref(), Some("80"));
        assert_eq!(read.parameters[5].deprecated, Some(vec!["ip".to_owned()]));
        assert_eq!(read.parameters[6].deprecated, Some(vec![]));
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(read.action("start").unwrap().timeout, seconds(60));
        assert_eq!(read.action("meta-data").unwrap().timeout, None);
        let deep: Vec<_> = read.deep_monitors().map(|m| (m.depth, m.timeout, m.interval)).collect();
        assert_eq!(deep, [(10, seconds(30), seconds(60))]);
    }

    #[test]
    fn what_is_no_meta_data_is_refused_with_a_reason() {
        let why = |text: &str| MetaData::parse(text).unwrap_err().to_string();
        assert!(why("usage: start|stop").contains("not XML"));
        assert!(why("").contains("not XML"));
        assert!(why("<fence-agent/>").contains("<fence-agent>, expected <resource-agent>"));
        let bomb = "<!DOCTYPE resource-agent [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">\
                    <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;\">]>\
                    <resource-agent><version>&d;&d;&d;</version></resource-agent>";
        assert!(why(bomb).contains("not XML"));
        assert!(why(&"<a>".repeat(300_000)).contains("not XML"));
        assert!(
            why(&("<resource-agent>".to_owned() + &"<a/>".repeat(200_000) + "</resource-agent>")).contains("not XML")
        );
    }

    #[test]
    fn times_are_read_as_cluster_managers_do() {
        let ms = |text| time(text).map(|t| t.as_millis());
        assert_eq!(
            [ms("20"), ms("20s"), ms("2 min"), ms("1h"), ms("500ms")].map(Option::unwrap),
            [20_000, 20_000, 120_000, 3_600_000, 500]
        );
        assert_eq!([ms(""), ms("soon"), ms("5 weeks"), ms("-1"), ms("99999999999999999999h")], [None; 5]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = MetaData::parse(&text);
            let _ = time(&text);
            // And such bytes in the middle of what is right.
            let (head, tail) = BOTH_VERSIONS.split_at(BOTH_VERSIONS.len() / 2);
            let _ = MetaData::parse(&format!("{head}{text}{tail}"));
        }
    }
}
