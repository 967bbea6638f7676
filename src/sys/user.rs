//! Users and groups by name or number, looked up once before anything starts.

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use libc::{gid_t, uid_t};

use super::spawn::Credentials;

/// What the kernel takes for "leave it as it is", in each call that changes a user or group.
const NOBODY_AT_ALL: u32 = u32::MAX;

/// A user of this machine.
struct User {
    uid: uid_t,
    gid: gid_t,
    name: CString,
    /// None where the number has no entry.
    account: Option<Account>,
}

/// What the user database says of a user, beside the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: OsString,
    pub(crate) home: OsString,
    pub(crate) shell: OsString,
}

/// Who workers run as.
#[derive(Clone, Debug)]
pub(crate) struct RunAs {
    pub(crate) credentials: Credentials,
    pub(crate) account: Option<Account>,
}

/// Who workers run as: the user's own group and supplementary groups unless `group` says otherwise.
pub(crate) fn run_as(user: Option<&str>, group: Option<&str>) -> Result<Option<RunAs>, String> {
    let gid = group.map(find_group).transpose()?;
    let Some(user) = user else {
        let credentials = gid.map(|gid| Credentials { uid: None, gid: Some(gid), groups: vec![gid] });
        return Ok(credentials.map(|credentials| RunAs { credentials, account: None }));
    };
    let user = find_user(user)?;
    let gid = gid.map_or_else(|| usable("group of user", &user.name.to_string_lossy(), user.gid), Ok)?;
    let groups = groups_of(&user.name, gid);
    let credentials = Credentials { uid: Some(user.uid), gid: Some(gid), groups };
    Ok(Some(RunAs { credentials, account: user.account }))
}

/// With this number the process would stay who it is: root, as a rule.
fn usable(kind: &str, name: &str, number: u32) -> Result<u32, String> {
    match number {
        NOBODY_AT_ALL => Err(format!(
            "{kind} `{name}`: the number {number} is nobody's: for the kernel it means that nothing is changed"
        )),
        number => Ok(number),
    }
}

/// Digits alone: a sign belongs to a name.
fn number(name: &str) -> Option<u32> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

const BUFFER: usize = 64 * 1024;

fn find_user(name: &str) -> Result<User, String> {
    let wanted = CString::new(name).map_err(|_| format!("user `{name}`: a NUL in the name"))?;
    let mut entry = MaybeUninit::<libc::passwd>::zeroed();
    let mut buffer = vec![0; BUFFER];
    let mut found = ptr::null_mut();
    let number = number(name);
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
            Some(uid) if status == 0 => {
                let uid = usable("user", name, uid)?;
                Ok(User { uid, gid: uid, name: wanted, account: None })
            }
            _ => Err(unknown("user", name, status)),
        };
    }
    // SAFETY: `found` points to `entry`, which the call filled in.
    let entry = unsafe { entry.assume_init() };
    // SAFETY: the texts of the entry point into `buffer`, which is alive, and end in NUL.
    let [name, home, shell] =
        [entry.pw_name, entry.pw_dir, entry.pw_shell].map(|text| unsafe { text_at(text) });
    let uid = usable("user", &name.to_string_lossy(), entry.pw_uid)?;
    let or = |text: &CStr, usual: &str| {
        if text.is_empty() { usual.into() } else { OsStr::from_bytes(text.to_bytes()).to_owned() }
    };
    let account = Account { name: or(&name, ""), home: or(&home, "/"), shell: or(&shell, "/bin/sh") };
    Ok(User { uid, gid: entry.pw_gid, name, account: Some(account) })
}

/// A text of an entry; some databases leave one out.
///
/// # Safety
///
/// It is null, or the start of a text that ends in NUL.
unsafe fn text_at(text: *const c_char) -> CString {
    // SAFETY: the caller's promise.
    if text.is_null() { CString::default() } else { unsafe { CStr::from_ptr(text) }.to_owned() }
}

fn find_group(name: &str) -> Result<gid_t, String> {
    if let Some(gid) = number(name) {
        return usable("group", name, gid);
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
    usable("group", name, unsafe { entry.assume_init() }.gr_gid)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_that_changes_nothing_is_refused() {
        let means = "the number 4294967295 is nobody's: for the kernel it means that nothing is changed";
        let user = |name| run_as(Some(name), None).unwrap_err();
        let group = |name| run_as(None, Some(name)).unwrap_err();
        for number in ["4294967295", "04294967295"] {
            assert_eq!(user(number), format!("user `{number}`: {means}"));
            assert_eq!(group(number), format!("group `{number}`: {means}"));
        }
        for no_number in ["-1", "+0", "4294967296", "0x0", " 0", "1.0"] {
            assert_eq!(user(no_number), format!("user `{no_number}`: no such user"));
            assert_eq!(group(no_number), format!("group `{no_number}`: no such group"));
        }
        let group_of_a_user = usable("group of user", "odd", u32::MAX).unwrap_err();
        assert_eq!(group_of_a_user, format!("group of user `odd`: {means}"));
    }

    #[test]
    fn numbers_and_names() {
        let root = run_as(Some("root"), None).unwrap().unwrap();
        assert_eq!((root.credentials.uid, root.credentials.gid), (Some(0), Some(0)));
        assert_eq!(root.account.map(|account| account.name), Some("root".into()));
        let unknown = run_as(Some("4711"), Some("4712")).unwrap().unwrap();
        let credentials = Credentials { uid: Some(4711), gid: Some(4712), groups: vec![4712] };
        assert_eq!((unknown.credentials, unknown.account), (credentials, None));
    }
}
