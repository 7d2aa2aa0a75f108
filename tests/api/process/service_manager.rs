//! What a service manager such as systemd is told, on a socket as it opens one.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    time::Duration,
};

use crate::support::{database::TestDatabase, process::Server};
use secrecy::ExposeSecret as _;

const PATIENCE: Duration = Duration::from_secs(30);

/// The next thing that it is told.
fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("it is told something");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// Whether the API answers now, without a wait.
fn answers(base: &str) -> bool {
    let mut socket = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200 ")
}

#[tokio::test]
async fn it_is_told_when_the_server_is_ready_lives_and_ends() {
    let database = TestDatabase::new().await;
    let dir = database.dir.path();
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let settings = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
        ("DM__SERVER__DRAIN_NOTICE", "300ms"),
    ];
    let mut server = Server::dev(&dir.join("data"), database.settings.url.expose_secret(), &settings);

    assert_eq!(told(&socket), "READY=1");
    assert!(answers(&server.base));
    for _ in 0..3 {
        assert_eq!(told(&socket), "WATCHDOG=1");
    }

    assert!(server.terminate().success(), "{}", server.output());
    socket.set_nonblocking(true).unwrap();
    let mut rest = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = socket.recv(&mut buffer) {
        rest.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    assert_eq!(rest.iter().filter(|told| *told == "STOPPING=1").count(), 1, "{rest:?}");
    // It lives until it has ended: whoever is ending for two seconds must not be taken for dead.
    assert!(rest.iter().skip_while(|told| *told != "STOPPING=1").any(|told| told == "WATCHDOG=1"));
    assert!(rest.iter().all(|told| told == "STOPPING=1" || told == "WATCHDOG=1"), "{rest:?}");
}

#[tokio::test]
async fn nobody_listening_is_no_reason_not_to_serve() {
    let database = TestDatabase::new().await;
    let dir = database.dir.path();
    let gone = dir.join("nobody");
    let settings = [("NOTIFY_SOCKET", gone.to_str().unwrap())];
    let mut server = Server::dev(&dir.join("data"), database.settings.url.expose_secret(), &settings);
    assert!(answers(&server.base));
    assert!(server.terminate().success());
    assert!(server.output().contains("the service manager cannot be told anything"), "{}", server.output());
}
