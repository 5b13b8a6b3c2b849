use super::*;

const SHIPPED: &str = include_str!("../../../packaging/reeve.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/reeve/reeve.toml"), text).map_err(|error| error.to_string())
}

/// The shipped file with every setting uncommented: `#key = ...` is a setting, `# text` is text.
fn uncommented() -> String {
    SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_shipped_file_sets_nothing_and_says_every_default() {
    assert_eq!(parse(SHIPPED).unwrap(), Config::default());
    let expected = Config {
        log_directory: Some(DEFAULT_LOG_DIRECTORY.into()),
        virtiofsd: Some("/usr/libexec/virtiofsd".into()),
        vhost_net: Some(true),
        default_network: Some(true),
        tls_from: Some(vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ]),
        tls_revoked: Some("/etc/pki/CA/cacrl.pem".into()),
        tls_allowed: Some(vec!["*".to_owned()]),
        tls_users_allowed: Some(vec!["*".to_owned()]),
        ..Config::default()
    };
    assert_eq!(parse(&uncommented()).unwrap(), expected);
    let named: toml::Table = uncommented().parse().unwrap();
    let known = table(&expected);
    assert_eq!(
        named.keys().collect::<Vec<_>>(),
        known.keys().collect::<Vec<_>>()
    );
}

#[test]
fn the_kernel_moves_no_frames_of_several_tenants() {
    for (text, may) in [
        ("", true),
        ("multi_tenant = true", false),
        ("multi_tenant = true\nvhost_net = false", false),
        ("vhost_net = false", false),
        ("multi_tenant = false\nvhost_net = true", true),
    ] {
        assert_eq!(parse(text).unwrap().may_use_vhost_net(), may, "{text}");
    }
    let refused = parse("multi_tenant = true\nvhost_net = true").unwrap_err();
    let refused = refused.to_string();
    for part in ["reeve.toml:2: vhost_net", "source filter", "take one"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(!refused.contains('\n'), "{refused}");
}

#[test]
fn an_error_names_file_line_and_key_on_one_line() {
    for (text, expected) in [
        (
            "# first\nmax_clients = \"many\"\n",
            "/etc/reeve/reeve.toml:2: max_clients: invalid type: string \"many\", expected u32",
        ),
        (
            "max_clients = 1\nmax_clients_per_uid = 0\n",
            "/etc/reeve/reeve.toml:2: max_clients_per_uid: 0 is not in 1 to 65536",
        ),
        (
            "\nallowed_directories = [\"images\"]",
            "/etc/reeve/reeve.toml:2: allowed_directories: 'images' is no absolute path without '..'",
        ),
        (
            "log_max_bytes = 1",
            "/etc/reeve/reeve.toml:1: log_max_bytes: 1 is less than 4096 bytes",
        ),
        (
            "log_keep = 1000",
            "/etc/reeve/reeve.toml:1: log_keep: 1000 is more than 99",
        ),
        (
            "libvirt_warm_processes = 65",
            "/etc/reeve/reeve.toml:1: libvirt_warm_processes: 65 is more than 64",
        ),
        (
            "libvirt_sockets = [\"libvirt-sock\"]",
            "/etc/reeve/reeve.toml:1: libvirt_sockets: 'libvirt-sock' is no absolute path without '..'",
        ),
        (
            "libvirt_sockets = [\"/a/s\", \"/a/s\"]",
            "/etc/reeve/reeve.toml:1: libvirt_sockets: '/a/s' is there twice, or is no name of a socket",
        ),
        (
            "tls_listen = [\"[::]:16514\", \"[::]:16514\"]",
            "/etc/reeve/reeve.toml:1: tls_listen: an address is there twice",
        ),
        (
            "tls_from = [\"::ffff:192.0.2.0/120\"]",
            "/etc/reeve/reeve.toml:1: tls_from: '::ffff:192.0.2.0/120': an address of IPv4 is written as one",
        ),
        (
            "tls_key = \"serverkey.pem\"",
            "/etc/reeve/reeve.toml:1: tls_key: 'serverkey.pem' is no absolute path without '..'",
        ),
        (
            "tls_read_only = [\"\"]",
            "/etc/reeve/reeve.toml:1: tls_read_only: there are more than 4096 names, or one is empty or has more than \
             1024 bytes",
        ),
        (
            "host_shutdown_timeout_seconds = 86401",
            "/etc/reeve/reeve.toml:1: host_shutdown_timeout_seconds: 86401 is more than 86400, a day",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), expected);
    }
    for range in ["192.0.2.1/24", "192.0.2.0/33", "host", "0.0.0.0/0", ""] {
        let line = parse(&format!("tls_from = [\"{range}\"]")).unwrap_err();
        let expected =
            format!("/etc/reeve/reeve.toml:1: tls_from: '{range}' is no address and no network");
        assert!(line.starts_with(&expected), "{line}");
    }
    let line = parse("max_clints = 1\n").unwrap_err();
    assert!(
        line.contains(":1: max_clints: unknown field `max_clints`"),
        "{line}"
    );
    for text in [
        "max_clients = = 1",
        "[section]\nmax_clients = 1",
        "x",
        "max_clients = 1\nmax_clients = 2",
    ] {
        let line = parse(text).unwrap_err();
        assert!(
            !line.contains('\n') && line.starts_with("/etc/reeve/reeve.toml:"),
            "{line}"
        );
    }
    assert!(
        parse("log_level = \"in=fo=x\"")
            .unwrap_err()
            .contains("log_level")
    );
}

#[test]
fn a_missing_file_is_the_defaults_and_an_unreadable_one_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reeve.toml");
    assert_eq!(Config::load_or_default(&path).unwrap(), Config::default());
    assert!(Config::load(&path).unwrap_err().is_missing());
    let named = Config::load_for_instance(&path).unwrap_err();
    assert!(named.is_missing(), "a misspelt path is no configuration");
    assert!(Config::load_or_default(directory.path()).is_err());
    std::fs::write(&path, b"\xff").unwrap();
    assert!(matches!(
        Config::load(&path),
        Err(ConfigError::NotText { .. })
    ));
    std::fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert!(matches!(
        Config::load(&path),
        Err(ConfigError::TooLarge { .. })
    ));
}

#[test]
fn a_reload_tells_what_changes_now_and_what_at_the_next_start() {
    let before = Config::default();
    let after = parse("log_level = \"debug\"\nlog_directory = \"/x\"\nlog_keep = 3\n").unwrap();
    let changes = before.changes(&after);
    assert_eq!(changes.applied, ["log_level"]);
    assert_eq!(changes.at_restart, ["log_directory"]);
    let now = before.reloaded(after);
    assert_eq!((now.log_level.as_str(), now.log_directory), ("debug", None));
    assert_eq!(before.changes(&before), Changes::default());
}
