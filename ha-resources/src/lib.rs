//! Everything that touches a kernel or a program, behind the traits of `ha-core`.

mod cgroup;
pub mod channel;
mod child;
pub mod claim;
pub mod clock;
mod command;
mod deadline;
pub mod fence;
pub mod kernel_log;
pub mod kinds;
mod log_file;
mod mounts;
pub mod pressure;
pub mod probe;
mod proc;
mod process_group;
pub mod resource;
pub mod systemd;
#[cfg(test)]
mod test_support;
mod uevent;
pub mod urgency;
