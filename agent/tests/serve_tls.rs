//! gRPC by TLS: who is let in, what may be asked, certificates that change, clients that mean harm.

#![allow(clippy::unwrap_used, reason = "tests")]

mod pki;

use keytrail_export::{
    Client, ClientError, Hub, Identity, Services, StatusSource, Target, TcpServer, TcpSpec,
    TlsFiles, connect, connect_channel,
};
use keytrail_proto::v1::baseline_service_client::BaselineServiceClient;
use keytrail_proto::v1::stream_events_response::Response as Payload;
use keytrail_proto::v1::{
    AddDecoyRequest, Event, GetStatusRequest, GetStatusResponse, NodeStatus, StreamEventsRequest,
};
use pki::{Authority, HOUR};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tonic::Code;

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Agent {
    dir: TempDir,
    authority: Authority,
    hub: Arc<Hub>,
    server: TcpServer,
    address: SocketAddr,
    clients: AtomicUsize,
}

fn identities(names: &[&str]) -> Vec<Identity> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

fn services(hub: &Arc<Hub>) -> Services {
    let status: StatusSource = Arc::new(|| GetStatusResponse {
        node: Some(NodeStatus {
            agent: "a1".into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    Services::new(hub.clone(), status, None)
}

fn spec(files: TlsFiles, listen: SocketAddr) -> TcpSpec {
    TcpSpec {
        listen,
        files,
        read: identities(&["spiffe://test/reader", "reader.example"]),
        administer: identities(&["spiffe://test/admin"]),
    }
}

async fn start() -> Agent {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("first");
    let own = authority.issue(&["127.0.0.1", "localhost"], HOUR);
    let files = pki::write(&dir.path().join("server"), &authority, &own);
    let hub = Hub::new();
    let spec = spec(files, ([127, 0, 0, 1], 0).into());
    let server = TcpServer::start(&Handle::current(), spec, services(&hub));
    let address = tokio::time::timeout(PATIENCE, server.bound())
        .await
        .unwrap()
        .unwrap();
    Agent {
        dir,
        authority,
        hub,
        server,
        address,
        clients: AtomicUsize::new(0),
    }
}

fn target(address: SocketAddr, files: TlsFiles) -> Target {
    format!("https://{address}")
        .parse::<Target>()
        .unwrap()
        .with(Some(files))
}

impl Agent {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A client whose certificate has these names, signed by `authority`.
    fn client_of(&self, authority: &Authority, names: &[&str], lifetime: Duration) -> Target {
        let own = authority.issue(names, lifetime);
        let n = self.clients.fetch_add(1, Ordering::Relaxed);
        let files = pki::write(&self.path(&format!("client{n}")), &self.authority, &own);
        target(self.address, files)
    }

    fn client(&self, names: &[&str]) -> Target {
        self.client_of(&self.authority, names, HOUR)
    }

    async fn connect(&self, names: &[&str]) -> Client {
        connect(self.client(names)).await.unwrap()
    }
}

async fn status(client: &mut Client) -> Result<String, tonic::Status> {
    let answer = tokio::time::timeout(PATIENCE, client.get_status(GetStatusRequest {}))
        .await
        .expect("no answer");
    Ok(answer?.into_inner().node.unwrap().agent)
}

/// Asks until the answer is as it should be.
async fn eventually(mut ask: impl AsyncFnMut() -> bool, what: &str) {
    let end = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_a_certificate_say_what_may_be_asked() {
    let agent = start().await;
    for names in [
        &["spiffe://test/reader"],
        &["Reader.Example"],
        &["spiffe://test/admin"],
    ] {
        let mut client = agent.connect(names).await;
        assert_eq!(status(&mut client).await.unwrap(), "a1", "{names:?}");
    }
    for names in [
        &["spiffe://test/other"][..],
        // Two URIs are no SPIFFE identity; the common name of all is reader.example.
        &["spiffe://test/reader", "spiffe://test/x"],
        &["spiffe://test/reader/more"],
        &["*.example"],
        &[],
    ] {
        let mut client = agent.connect(names).await;
        let refused = status(&mut client).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{names:?}");
        assert!(refused.message().contains("tcp.read"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_changes_nothing() {
    let agent = start().await;
    let add = async |names: &[&str]| {
        let channel = connect_channel(agent.client(names)).await.unwrap();
        BaselineServiceClient::new(channel)
            .add_decoy(AddDecoyRequest::default())
            .await
            .unwrap_err()
            .code()
    };
    assert_eq!(add(&["spiffe://test/reader"]).await, Code::PermissionDenied);
    // Who may is let through, to a service that this agent does not have.
    assert_eq!(add(&["spiffe://test/admin"]).await, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_certificate_there_is_no_answer() {
    let agent = start().await;
    let stranger = Authority::new("stranger");
    let other = agent.client_of(&stranger, &["spiffe://test/reader"], HOUR);
    let past = agent.client_of(&agent.authority, &["spiffe://test/reader"], Duration::ZERO);
    // Its last second has to be over: certificates know no smaller part.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for target in [other, past] {
        // In TLS 1.3 a client knows only when it reads.
        let refused = match connect(&target).await {
            Err(_) => true,
            Ok(mut client) => status(&mut client).await.is_err(),
        };
        assert!(refused);
    }
    // Nor does a client talk to an agent that it does not know.
    let own = agent.authority.issue(&["spiffe://test/reader"], HOUR);
    let files = pki::write(&agent.path("wrong"), &stranger, &own);
    let error = connect(target(agent.address, files)).await.unwrap_err();
    assert!(error.to_string().contains("not to be trusted"), "{error}");
    // Nothing in clear, in either direction.
    let mut plain = TcpStream::connect(agent.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer))
        .await
        .expect("it hangs");
    // An alert at most.
    assert!(
        answer.len() <= 7 && answer.first().is_none_or(|&b| b == 21),
        "{answer:?}"
    );
    let none = format!("https://{}", agent.address)
        .parse::<Target>()
        .unwrap();
    let error = connect(none).await.unwrap_err();
    assert!(error.to_string().contains("--tls-cert"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_taken_while_it_runs() {
    let agent = start().await;
    let reader = agent.client(&["spiffe://test/reader"]);
    let mut before = connect(&reader).await.unwrap();
    let mut stream = before
        .stream_events(StreamEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    // What cannot be used changes nothing.
    std::fs::write(agent.path("server/tls.key"), "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(status(&mut before).await.unwrap(), "a1");
    // The same authority: connections go on, new ones see the new certificate.
    let own = agent
        .authority
        .issue(&["127.0.0.1", "renewed.example"], HOUR);
    pki::write(&agent.path("server"), &agent.authority, &own);
    let renewed: Target = format!("https://localhost:{}", agent.address.port())
        .parse()
        .unwrap();
    let Target::Tcp { files, .. } = &reader else {
        panic!()
    };
    let renewed = renewed.with(files.as_deref().cloned());
    eventually(
        async || connect(&renewed).await.is_err(),
        "the old certificate, which has localhost, is still shown",
    )
    .await;
    assert_eq!(status(&mut before).await.unwrap(), "a1");
    // Another authority: whoever the old one vouched for has to go.
    let second = Authority::new("second");
    let own = second.issue(&["127.0.0.1"], HOUR);
    pki::write(&agent.path("server"), &second, &own);
    let ended = tokio::time::timeout(PATIENCE, stream.message()).await;
    assert!(ended.expect("the stream goes on").is_err());
    let new = second.issue(&["spiffe://test/reader"], HOUR);
    let files = pki::write(&agent.path("new"), &second, &new);
    let mut client = connect(target(agent.address, files)).await.unwrap();
    assert_eq!(status(&mut client).await.unwrap(), "a1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_of_its_client() {
    let agent = start().await;
    let target = agent.client_of(
        &agent.authority,
        &["spiffe://test/reader"],
        Duration::from_secs(10),
    );
    let mut client = connect(&target).await.unwrap();
    let mut stream = client
        .stream_events(StreamEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ended = tokio::time::timeout(PATIENCE, stream.message()).await;
    assert!(ended.expect("the stream goes on").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_first_is_taken_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("first");
    let files = TlsFiles {
        ca: dir.path().join("server/ca.crt"),
        certificate: dir.path().join("server/tls.crt"),
        key: dir.path().join("server/tls.key"),
    };
    let spec = spec(files, ([127, 0, 0, 1], 0).into());
    let server = TcpServer::start(&Handle::current(), spec, services(&Hub::new()));
    let own = authority.issue(&["127.0.0.1"], HOUR);
    pki::write(&dir.path().join("server"), &authority, &own);
    let address = tokio::time::timeout(PATIENCE, server.bound()).await;
    let own = authority.issue(&["spiffe://test/reader"], HOUR);
    let files = pki::write(&dir.path().join("client"), &authority, &own);
    let reader = target(address.unwrap().unwrap(), files);
    let mut client = connect(&reader).await.unwrap();
    assert_eq!(status(&mut client).await.unwrap(), "a1");
    // Nobody listens any more where it was.
    server.shutdown().await;
    let again = async || matches!(connect(&reader).await, Err(ClientError::NoAgent(_)));
    eventually(again, "it still listens").await;
}

/// Half-open connections, garbage, silence after the handshake, too many calls, streams that nobody reads: somebody else is
/// answered all the same, and memory stays bounded.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
async fn a_hostile_client_costs_others_nothing() {
    let agent = start().await;
    let mut good = agent.connect(&["reader.example"]).await;
    let mut watched = good
        .stream_events(StreamEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(watched.message().await.unwrap().is_some());
    let mut held = Vec::new();
    for n in 0..100_u8 {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        if n % 2 == 0 {
            let _ = stream.write_all(&[n; 4096]).await;
        }
        held.push(stream);
    }
    // One client: more connections and streams than it may have, and none is read.
    let hostile = agent.client(&["spiffe://test/reader"]);
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    let mut refused = 0;
    // Its address has many handshakes that do not end: until they are given up it may have to wait.
    let end = Instant::now() + PATIENCE;
    while clients.len() < 8 && Instant::now() < end {
        match connect(&hostile).await {
            Ok(client) => clients.push(client),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    assert_eq!(clients.len(), 8);
    for client in &mut clients {
        for _ in 0..4 {
            match client.stream_events(StreamEventsRequest::default()).await {
                Ok(stream) => streams.push(stream),
                Err(e) => {
                    assert_eq!(e.code(), Code::ResourceExhausted, "{e:?}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((streams.len(), refused), (16, 16));
    let ninth = match connect(&hostile).await {
        Err(_) => true,
        Ok(mut ninth) => status(&mut ninth).await.is_err(),
    };
    assert!(ninth, "a ninth connection is served");
    // It asks as fast as it can.
    let mut limited = false;
    drop(streams.split_off(8));
    let calls: Vec<_> = (0..400)
        .map(|n| {
            let mut client = clients[n % 8].clone();
            tokio::spawn(async move { status(&mut client).await })
        })
        .collect();
    for call in calls {
        if let Err(e) = call.await.unwrap() {
            assert_eq!(e.code(), Code::ResourceExhausted, "{e:?}");
            limited = true;
        }
    }
    assert!(limited, "its rate is not bounded");
    // Meanwhile the other one gets its answers and its events.
    assert_eq!(status(&mut good).await.unwrap(), "a1");
    for n in 1..=200_u32 {
        agent.hub.publish(Arc::new(Event {
            coverage: vec!["x".repeat(64 << 10)],
            kind: keytrail_model::EventKind::CredentialRead.number(),
            boot_time_ns: n.into(),
            ..Event::default()
        }));
        let next = tokio::time::timeout(PATIENCE, watched.message()).await;
        match next.unwrap().unwrap().unwrap().response.unwrap() {
            Payload::Event(event) => assert_eq!(event.boot_time_ns, u64::from(n)),
            other => panic!("{other:?}"),
        }
    }
    drop(held);
    let new = agent.client_of(&agent.authority, &["spiffe://test/admin"], HOUR);
    eventually(
        async || match connect(&new).await {
            Ok(mut client) => status(&mut client).await.is_ok(),
            Err(_) => false,
        },
        "a new client is not let in",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_at_the_end_is_delivered() {
    let agent = start().await;
    let mut client = agent.connect(&["reader.example"]).await;
    let mut stream = client
        .stream_events(StreamEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    agent.hub.publish(Arc::new(Event {
        kind: keytrail_model::EventKind::CredentialRead.number(),
        ..Event::default()
    }));
    agent.hub.close();
    let server = agent.server;
    let (last, ()) = tokio::join!(stream.message(), server.shutdown());
    assert!(matches!(
        last.unwrap().unwrap().response,
        Some(Payload::Event(_))
    ));
    assert!(stream.message().await.unwrap().is_none());
}

/// The command line, as people have it.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_ask_an_agent_elsewhere() {
    let agent = start().await;
    let Target::Tcp { files, .. } = agent.client(&["spiffe://test/reader"]) else {
        panic!()
    };
    let files = *files.unwrap();
    let run = async |address: String, with: Option<&TlsFiles>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keytrail"));
        command.args(["doctor", "-o", "json", "--address", &address]);
        if let Some(files) = with {
            command
                .arg("--tls-ca")
                .arg(&files.ca)
                .arg("--tls-cert")
                .arg(&files.certificate)
                .env("KEYTRAIL_TLS_KEY", &files.key);
        }
        let ran = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(PATIENCE, ran).await;
        let output = output.expect("it hangs").unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code().unwrap(),
            text,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let address = format!("https://{}", agent.address);
    let (_, text, _) = run(address.clone(), Some(&files)).await;
    assert!(text.contains("\"a1\""), "{text}");
    let (code, text, error) = run(address, None).await;
    assert_eq!((code, text.as_str()), (1, ""), "{error}");
    assert!(error.contains("KEYTRAIL_TLS_CERT"), "{error}");
    // No agent there: the sensors of this host are not tried instead.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("https://{}", free.local_addr().unwrap());
    drop(free);
    let (code, text, error) = run(gone, Some(&files)).await;
    assert_eq!((code, text.as_str()), (3, ""), "{error}");
    assert!(error.contains("no agent is listening"), "{error}");
}
