//! Who the workers run as: whether the master could signal them, and what their environment says of the user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::sys::capability::Capability;
use crate::sys::process;
use crate::sys::user::{self, Account, RunAs};

/// By the settings; `None` is as the master. Refuses users whose processes the master could start, but neither stop nor
/// kill.
pub(super) fn of(config: &Config) -> Result<Option<RunAs>> {
    let run_as = user::run_as(config.user.as_deref(), config.group.as_deref());
    let run_as = run_as.map_err(|error| Error::new(Kind::Start, error))?;
    let uid = run_as.as_ref().and_then(|run_as| run_as.credentials.uid);
    if let (Some(uid), Some(user)) = (uid, &config.user)
        && !can_signal(uid)
    {
        let lack = "the master may change to it (CAP_SETUID) but could not signal its processes, neither to stop nor \
                    to kill them, since it lacks CAP_KILL";
        let where_from =
            "add CAP_KILL where CAP_SETUID comes from, such as CapabilityBoundingSet= of the unit";
        return Err(Error::new(Kind::Start, format!("user `{user}`: {lack}; {where_from}")));
    }
    Ok(run_as)
}

/// Whoever may not even change to the user starts nobody, and is told so by the first spawn.
fn can_signal(uid: u32) -> bool {
    let is_held = |capability: Capability| capability.is_held().unwrap_or(true);
    process::users().contains(&uid) || is_held(Capability::Kill) || !is_held(Capability::SetUid)
}

/// What the master's environment says of its own user, changed to what is true of the workers'.
pub(super) fn describe(env: &mut BTreeMap<OsString, OsString>, uid: u32, account: Option<&Account>) {
    let texts = match account.cloned() {
        Some(Account { name, home, shell }) => [name.clone(), name, home, shell].map(Some),
        None => [None, None, Some("/".into()), None],
    };
    for (key, value) in ["USER", "LOGNAME", "HOME", "SHELL"].into_iter().zip(texts) {
        set(env, key, value);
    }
    let folder = format!("/run/user/{uid}");
    let is_theirs =
        fs::symlink_metadata(Path::new(&folder)).is_ok_and(|found| found.is_dir() && found.uid() == uid);
    set(env, "XDG_RUNTIME_DIR", is_theirs.then(|| folder.into()));
}

fn set(env: &mut BTreeMap<OsString, OsString>, key: &str, value: Option<OsString>) {
    match value {
        Some(value) => drop(env.insert(key.into(), value)),
        None => drop(env.remove(std::ffi::OsStr::new(key))),
    }
}
