//! Users and groups by name or number, looked up once before anything starts.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{gid_t, uid_t};

use super::spawn::Credentials;

/// A user of this machine.
struct User {
    uid: uid_t,
    gid: gid_t,
    name: CString,
}

/// Who workers run as: the user's own group and supplementary groups unless `group` says otherwise.
pub(crate) fn credentials(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, String> {
    let gid = group.map(find_group).transpose()?;
    let Some(user) = user else {
        return Ok(gid.map(|gid| Credentials { uid: None, gid: Some(gid), groups: vec![gid] }));
    };
    let user = find_user(user)?;
    let gid = gid.unwrap_or(user.gid);
    let groups = groups_of(&user.name, gid);
    Ok(Some(Credentials { uid: Some(user.uid), gid: Some(gid), groups }))
}

const BUFFER: usize = 64 * 1024;

fn find_user(name: &str) -> Result<User, String> {
    let wanted = CString::new(name).map_err(|_| format!("user `{name}`: a NUL in the name"))?;
    let mut entry = MaybeUninit::<libc::passwd>::zeroed();
    let mut buffer = vec![0; BUFFER];
    let mut found = ptr::null_mut();
    let number = name.parse::<uid_t>().ok();
    // SAFETY: all pointers are to live memory of the lengths given; the result points into `buffer`.
    let status = unsafe {
        let (entry, buffer) = (entry.as_mut_ptr(), buffer.as_mut_ptr());
        match number {
            Some(uid) => libc::getpwuid_r(uid, entry, buffer, BUFFER, &raw mut found),
            None => libc::getpwnam_r(wanted.as_ptr(), entry, buffer, BUFFER, &raw mut found),
        }
    };
    if found.is_null() {
        return match number {
            Some(uid) if status == 0 => Ok(User { uid, gid: uid, name: wanted }),
            _ => Err(unknown("user", name, status)),
        };
    }
    // SAFETY: `found` points to `entry`, filled in; its name points into `buffer`, which is alive.
    let (entry, name) = unsafe { (entry.assume_init(), CStr::from_ptr((*found).pw_name).to_owned()) };
    Ok(User { uid: entry.pw_uid, gid: entry.pw_gid, name })
}

fn find_group(name: &str) -> Result<gid_t, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let wanted = CString::new(name).map_err(|_| format!("group `{name}`: a NUL in the name"))?;
    let mut entry = MaybeUninit::<libc::group>::zeroed();
    let mut buffer = vec![0; BUFFER];
    let mut found = ptr::null_mut();
    // SAFETY: all pointers are to live memory of the lengths given.
    let status = unsafe {
        libc::getgrnam_r(wanted.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), BUFFER, &raw mut found)
    };
    if found.is_null() {
        return Err(unknown("group", name, status));
    }
    // SAFETY: the call succeeded and filled `entry` in.
    Ok(unsafe { entry.assume_init() }.gr_gid)
}

fn unknown(kind: &str, name: &str, status: i32) -> String {
    match status {
        0 => format!("{kind} `{name}`: no such {kind}"),
        errno => format!("{kind} `{name}`: {}", crate::error::Cause(&io::Error::from_raw_os_error(errno))),
    }
}

/// The groups of a user by the group database; at least `gid`.
fn groups_of(name: &CStr, gid: gid_t) -> Vec<gid_t> {
    let mut groups: Vec<gid_t> = vec![0; 1024];
    let mut count = 1024;
    // SAFETY: `groups` has room for `count` ids; the call stores how many it wrote.
    let done = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
    groups.truncate(if done < 0 { 0 } else { usize::try_from(count).unwrap_or(0) });
    if groups.is_empty() {
        groups.push(gid);
    }
    groups
}
