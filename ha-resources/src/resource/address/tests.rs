//! Addresses on real interfaces, in network namespaces.

use super::*;

#[test]
fn addresses_are_checked_at_the_border() {
    assert!("10.0.0.10/24".parse::<Cidr>().is_ok());
    assert!("fd00::10/64".parse::<Cidr>().is_ok());
    for bad in ["10.0.0.10", "10.0.0.10/33", "10.0.0.256/24", "::/64", "224.0.0.1/4", "fd00::1/129", "x/1", "/", ""] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}
