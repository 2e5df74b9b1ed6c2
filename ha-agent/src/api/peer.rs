//! Who is at the other end of the socket, and what that user may do.
//!
//! The kernel vouches for the caller's uid and gid (`SO_PEERCRED`, unix(7)). Whoever can open the socket may look; root, the
//! user that the agent runs as, and members of the operators' group may change things.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// The user at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user's number.
    pub(crate) uid: u32,
    /// The number of the process's group.
    pub(crate) gid: u32,
}

impl Caller {
    /// Whether the user may change things. Looks up groups, which may take as long as the system's user database needs.
    pub(crate) fn may_change(self, operators: Option<Gid>) -> bool {
        if self.uid == 0 || self.uid == geteuid().as_raw() {
            return true;
        }
        let Some(operators) = operators else { return false };
        if self.gid == operators.as_raw() {
            return true;
        }
        let Some(user) = User::from_uid(Uid::from_raw(self.uid)).ok().flatten() else { return false };
        let Ok(name) = CString::new(user.name) else { return false };
        getgrouplist(&name, Gid::from_raw(self.gid)).is_ok_and(|groups| groups.contains(&operators))
    }

    /// The user's name, or number if there is no name.
    pub(crate) fn user_name(self) -> String {
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid {}", self.uid),
        }
    }
}
