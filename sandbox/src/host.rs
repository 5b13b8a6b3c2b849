//! What a host must have, checked by trying it.

/// What mends a host that refuses user namespaces, by the setting that refuses them.
pub(crate) fn user_namespace_remedy() -> &'static str {
    let is = |path: &str, value: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
    };
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "user namespaces are switched off: sysctl -w user.max_user_namespaces=10000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor restricts user namespaces: install Reeve's AppArmor profile, or \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "user namespaces are refused: run as root, or outside of a container that forbids them"
    }
}
