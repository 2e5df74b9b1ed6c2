//! A route as it stands in a hierarchy file.
//!
//! Decides what of a route can be told to be wrong without a kernel.

use std::net::IpAddr;

use ha_core::hierarchy::Fields;

use super::table::{LOCAL, MAIN};
use super::{Destination, RouteSpec};

const ADDRESS: &str = "an IP address, such as \"10.0.0.1\"";

impl RouteSpec {
    /// Reads the fields of `Route(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Route(
    ///     name: "branch",
    ///     to: "10.20.0.0/16",              // or "default"
    ///     via: "10.0.0.1",                 // or dev, or both
    ///     dev: "eth0",
    ///     src: "10.0.0.10",
    ///     table: 254,
    ///     metric: 100,
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<RouteSpec> {
        let to: Option<String> = fields.required("to", "\"default\", or a network such as \"10.20.0.0/16\"");
        let address = |fields: &mut Fields<'_>, key| match fields.value(key) {
            None => Some(None),
            Some(value) => value.read::<IpAddr>(ADDRESS).map(Some),
        };
        let via = address(fields, "via");
        let src = address(fields, "src");
        let dev = match fields.value("dev") {
            None => Some(None),
            Some(value) => value.read::<String>("the name of an interface, such as \"eth0\"").map(Some),
        };
        let table = fields.or("table", "the number of a routing table", MAIN);
        let metric: u32 = fields.or("metric", "a number: of several routes the least is taken", 0);
        let (to, via, src, dev) = (to?, via?, src?, dev?);

        let to = if to == "default" {
            let Some(like) = via.or(src) else {
                fields.problem(
                    "to",
                    "\"default\" can be of IPv4 or of IPv6, and no address says which",
                    Some("write \"0.0.0.0/0\" or \"::/0\"".to_owned()),
                );
                return None;
            };
            Destination::everywhere(like)
        } else {
            to.parse().map_err(|e: String| fields.problem("to", &e, None)).ok()?
        };
        let mut good = true;
        for (key, address) in [("via", via), ("src", src)] {
            let Some(address) = address else { continue };
            if address.is_ipv4() != to.address().is_ipv4() {
                fields.problem(
                    key,
                    &format!("{address} is not of the family of {}: IPv4 or IPv6, not both", to.address()),
                    None,
                );
                good = false;
            } else if address.is_unspecified() || address.is_multicast() {
                fields.problem(key, &format!("{address} is the address of no machine: expected {ADDRESS}"), None);
                good = false;
            }
        }
        if via.is_none() && dev.is_none() {
            fields.problem("to", "it leads nowhere: say `via`, `dev` or both", None);
            good = false;
        }
        if dev.as_deref().is_some_and(|name| !is_interface_name(name)) {
            fields.problem("dev", "this is no interface name: expected 1 to 15 characters, such as \"eth0\"", None);
            good = false;
        }
        if matches!(via, Some(IpAddr::V6(v6)) if v6.is_unicast_link_local()) && dev.is_none() {
            fields.problem("via", "a link-local address is on every link: say `dev` too", None);
            good = false;
        }
        if table == 0 || table == LOCAL {
            fields.problem("table", &format!("{table} is no table for routes: 254 is the main one"), None);
            good = false;
        }
        good.then_some(RouteSpec { to, via, dev, src, table, metric })
    }
}

/// The kernel's limits (`IFNAMSIZ`, dev_valid_name).
fn is_interface_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 15 && !name.contains(['/', ' ', ':']) && name != "." && name != ".."
}
