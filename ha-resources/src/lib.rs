//! ha-resources
