//! A mail server that takes every mail, but for what a test tells it to answer.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use digitalmistress::platform::mail::{Smtp, SmtpSettings};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// Instead of an answer: says nothing more, and keeps the connection open.
pub const HANG: &str = "";

/// A mail that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub from: String,
    pub to: String,
    pub text: String,
}

/// The server.
#[derive(Clone)]
pub struct MailServer {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<Vec<(&'static str, &'static str)>>,
    taken: Mutex<Vec<Taken>>,
    credentials: Mutex<Vec<String>>,
    arrived: Notify,
}

impl MailServer {
    /// Gives each of `answers` once, in order, to the next command that it is for: `greeting`, `EHLO`, `AUTH`, `MAIL`,
    /// `RCPT`, `DATA`, `text` or `QUIT`. Otherwise everything is welcome.
    pub async fn start(answers: &[(&'static str, &'static str)]) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { answers: Mutex::new(answers.to_vec()), ..Shared::default() });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(BufStream::new(stream), serving.clone()));
            }
        });
        MailServer { address, shared }
    }

    /// Who sends through it.
    pub fn sender(&self) -> Smtp {
        sender(&format!("smtp://someone:a%20p%40ssword@{}", self.address))
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The mails that it took, oldest first.
    pub fn taken(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// Waits for a mail.
    pub async fn arrival(&self) {
        self.shared.arrived.notified().await;
    }

    /// Names and passwords that it was given.
    pub fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().unwrap().clone()
    }
}

/// Sends through the server at `url`.
pub fn sender(url: &str) -> Smtp {
    let from = "Example <no-reply@example.com>".to_owned();
    Smtp::new(&SmtpSettings { url: url.into(), from }).unwrap()
}

impl Shared {
    /// What a test wants to be answered, or what is usual; `None` to hang.
    fn answer(&self, to: &str, usual: &'static str) -> Option<&'static str> {
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.iter().position(|(command, _)| *command == to) {
            Some(found) => answers.remove(found).1,
            None => usual,
        };
        (answer != HANG).then_some(answer)
    }
}

async fn talk(mut stream: BufStream<TcpStream>, shared: Arc<Shared>) -> Option<()> {
    let (mut from, mut to) = (String::new(), String::new());
    let mut next = ("greeting".to_owned(), "220 mail.example.com");
    loop {
        let (command, usual) = &next;
        let Some(answer) = shared.answer(command, usual) else { return std::future::pending().await };
        if command == "text" && answer.starts_with('2') {
            shared.arrived.notify_one();
        }
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        if command == "QUIT" {
            return None;
        }
        if command == "DATA" && answer.starts_with('3') {
            let text = text(&mut stream).await?;
            shared.taken.lock().unwrap().push(Taken { from: from.clone(), to: to.clone(), text });
            next = ("text".to_owned(), "250 taken");
            continue;
        }
        let line = line(&mut stream).await?;
        let command = line.split(' ').next().unwrap().to_ascii_uppercase();
        let usual = match command.as_str() {
            "EHLO" => "250-mail.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN",
            "AUTH" => {
                let given = BASE64_STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
                shared.credentials.lock().unwrap().push(String::from_utf8(given).unwrap());
                "235 welcome"
            }
            "MAIL" => {
                line.clone_into(&mut from);
                "250 go on"
            }
            "RCPT" => {
                line.clone_into(&mut to);
                "250 go on"
            }
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "502 what?",
        };
        next = (command, usual);
    }
}

async fn line(stream: &mut BufStream<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

async fn text(stream: &mut BufStream<TcpStream>) -> Option<String> {
    let mut text = String::new();
    loop {
        match line(stream).await?.as_str() {
            "." => return Some(text),
            line => text.push_str(&format!("{line}\n")),
        }
    }
}
