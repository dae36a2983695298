//! Certificates that are refused, and the exact reports on them.

use super::*;

#[test]
fn invalid_certificates_are_refused() {
    let folder = Folder::new("tls");
    for name in ["one", "two"] {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        folder.write(&format!("{name}.pem"), made.cert.pem());
        folder.write(&format!("{name}.key"), made.signing_key.serialize_pem());
    }
    let path = |name: &str| format!("{:?}", folder.0.join(name));
    let (one, key, two) = (path("one.pem"), path("one.key"), path("two.key"));
    let none = path("none.pem");
    let missing = "which cannot be read: No such file or directory (os error 2)";
    for (cert, key, expected) in [
        (
            &none,
            &none,
            format!("2:8: cert needs the file {none}, {missing}\n3:7: key needs the file {none}, {missing}"),
        ),
        (
            &key,
            &key,
            format!("2:8: cert needs the file {key}, which holds no certificate; it must be in PEM form"),
        ),
        (
            &one,
            &one,
            format!("3:7: key needs the file {one}, which holds no private key; it must be in PEM form"),
        ),
        (
            &one,
            &two,
            format!(
                "3:7: key does not fit: the first certificate of {one} belongs to another key than {two}; use its own key"
            ),
        ),
        (
            &"3".to_owned(),
            &"\"\"".to_owned(),
            "2:8: cert must be a string, not an integer\n3:7: key must be the path of a PEM file".to_owned(),
        ),
    ] {
        let report = report_above_upstream(&format!("[server.tls]\ncert = {cert}\nkey = {key}\n"));
        let expected: Vec<_> = expected.lines().map(|line| format!("f.toml:{line}")).collect();
        assert_eq!(report.lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn invalid_tables_are_refused() {
    for (text, expected) in [
        (
            "server.tls = 3",
            "1:14: tls must be a table, not an integer; write [server.tls]",
        ),
        (
            "[server.tls]\ncert = 3",
            "1:1: [server.tls] has no key; add key = \"k.pem\"",
        ),
        (
            "[server]\ncert = \"c\"",
            "2:1: unknown field \"cert\" in [server]; it belongs in [server.tls]",
        ),
    ] {
        let report = report_above_upstream(text);
        assert_eq!(report.lines().next(), Some(format!("f.toml:{expected}").as_str()));
    }
}
