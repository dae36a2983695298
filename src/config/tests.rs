#[test]
fn probe() {
    for text in [
        "[server\nlisten = 1\n[admin]\nlisten = 3\n",
        "[server]\nlisten = \"127\nmax_body = 3\n[adm]\n",
        "weight = abc\n",
        "server = {listen = 3, a\n}\n[admin]\nx=1",
        "[server]\nlisten = [ 1, 2\nmax_body = 4\n[admin]\nx = 1\n",
        "[server]\n[server]\n x = 1\n",
        "[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n\"listen\" = 3\n",
        "[server]\nlisten =\nmax_body = 1\n",
        "= 3\n[[upstream]\nname=3\n",
        "x = '''abc\n[server]\ngrace=3\n",
        "server.listen = 3\n[server]\nmax_body = 1\n",
        "[server]\ngrace = 99999999999999999999\nmax_body=0x\ncapacity = 1__0\n",
    ] {
        println!("--- {text:?}");
        match super::Config::from_toml(text, "f.toml", &|_| None, &Default::default()) {
            Ok(c) => println!("{c:?}"),
            Err(e) => println!("{e}"),
        }
    }
}
