//! What this node hears of the others, and what it tells them.

mod announcement;

pub use announcement::{AnnouncedPhase, Announcement, Declined, Directive, NodeAnnouncement};
