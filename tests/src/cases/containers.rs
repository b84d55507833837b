//! Containers of a real runtime: containerd with its shim and runc, on this machine's own kernel.

use crate::{
    agent::Agent,
    command::{Act, Background, act, sh},
    events::{Ask as _, Event, list},
    machine::{Scratch, patience, turn, wait_for},
    plant,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) const IMAGE: &str = "keytrail.test/busybox:1";

/// Makes an image of one layer: busybox, and a file with a credential. An OCI layout in a tar file (image-spec).
const MAKE_IMAGE: &str = r#"
import gzip, hashlib, io, json, sys, tarfile
out, busybox, credentials, name = sys.argv[1:5]
def member(archive, path, data, mode, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, target
    archive.addfile(info, io.BytesIO(data))
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as archive:
    for path in ["bin", "etc", "tmp", "root", "root/.aws", "run", "run/secrets", "proc", "sys", "dev"]:
        member(archive, path, b"", 0o755, tarfile.DIRTYPE)
    member(archive, "bin/busybox", open(busybox, "rb").read(), 0o755)
    for applet in ["sh", "cat", "sleep", "nc"]:
        member(archive, "bin/" + applet, b"", 0o777, tarfile.SYMTYPE, "busybox")
    member(archive, "root/.aws/credentials", open(credentials, "rb").read(), 0o600)
blobs = {}
def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    blobs["blobs/sha256/" + digest] = data
    return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(data)}
text = lambda value: json.dumps(value).encode()
diff = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
packed = blob(gzip.compress(layer.getvalue()), "application/vnd.oci.image.layer.v1.tar+gzip")
config = blob(text({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "600"]}, "rootfs": {"type": "layers", "diff_ids": [diff]}}),
    "application/vnd.oci.image.config.v1+json")
manifest = blob(text({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
    "layers": [packed]}), "application/vnd.oci.image.manifest.v1+json")
manifest["annotations"] = {"io.containerd.image.name": name}
with tarfile.open(out, "w") as archive:
    member(archive, "oci-layout", text({"imageLayoutVersion": "1.0.0"}), 0o644)
    member(archive, "index.json", text({"schemaVersion": 2, "manifests": [manifest]}), 0o644)
    for path, data in blobs.items():
        member(archive, path, data, 0o644)
"#;

/// A containerd of this test's own.
pub(super) struct Runtime {
    state: PathBuf,
    containerd: Background,
}

impl Runtime {
    /// With an image that has the usual file of AWS in it.
    fn start(scratch: &Scratch) -> (Self, plant::Planted) {
        Self::with(
            scratch,
            "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]",
            "",
            "default",
        )
    }

    /// As a kubelet uses it: its image has to do for what holds a pod's namespaces as well.
    pub fn with_cri(scratch: &Scratch) -> Self {
        let cri = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {IMAGE:?}\ndisable_tcp_service = true\nrestrict_oom_score_adj = true\n"
        );
        Self::with(scratch, "", &cri, "k8s.io").0
    }

    pub fn socket(&self) -> PathBuf {
        self.state.join("sock")
    }

    /// `top` and `tables` of the configuration, and the namespace whose the image is.
    fn with(scratch: &Scratch, top: &str, tables: &str, namespace: &str) -> (Self, plant::Planted) {
        let root = scratch.make("containerd");
        // Where a runtime keeps what lasts until the next boot: in memory.
        let state = PathBuf::from(format!("/run/keytrail-test-{}", std::process::id()));
        fs::create_dir_all(&state).unwrap();
        let config = root.join("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {state:?}\n{top}\n[grpc]\naddress = \"{}/sock\"\n{tables}",
            root.join("root"),
            state.display()
        );
        fs::write(&config, text).unwrap();
        let containerd = act("containerd")
            .arg("--config")
            .arg(&config)
            .spawn_reading(&root.join("stderr"));
        let runtime = Self { state, containerd };
        wait_for("containerd", patience(30), || {
            runtime
                .ctr()
                .arg("version")
                .run()
                .status
                .success()
                .then_some(())
        });
        let (planted, file) = plant::aws_credentials(&scratch.make("image"));
        let image = root.join("image.tar");
        act("python3")
            .args(["-c", MAKE_IMAGE])
            .arg(&image)
            .args(["/bin/busybox".as_ref(), file.as_os_str(), IMAGE.as_ref()])
            .run()
            .ok();
        let import = runtime.ctr().args(["--namespace", namespace]);
        import.args(["images", "import"]).arg(&image).run().ok();
        (runtime, planted)
    }

    fn ctr(&self) -> Act {
        act("ctr").arg("--address").arg(self.state.join("sock"))
    }

    /// `ctr run --rm` with these options, as container `name`.
    fn run(&self, options: &[&str], name: &str, command: &[&str]) -> crate::command::Done {
        self.ctr()
            .args(["run", "--rm", "--net-host"])
            .args(options)
            .args([IMAGE, name])
            .args(command)
            .run()
            .ok()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.containerd.signal(libc::SIGTERM);
        let limit = patience(10);
        let _ = self.containerd.wait(limit, "containerd after SIGTERM");
        // What a container that did not end has mounted is in the way.
        let _ = sh("grep -o \" $1[^ ]*\" /proc/self/mountinfo | xargs -r umount -l; rm -rf \"$1\"")
            .arg(&self.state)
            .run();
    }
}

/// Events about one credential, but for what is only their context.
fn about(agent: &Agent, fingerprint: &str) -> Vec<Event> {
    agent
        .events()
        .into_iter()
        .filter(|e| e.fingerprint() == fingerprint && !e.is("process_start"))
        .collect()
}

/// A token in a container's environment: what its runtime does to bring it there is one fact of one event, and what the
/// container does with it is reported.
pub fn a_token_in_the_environment() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (runtime, _) = Runtime::start(&scratch);
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let variable = format!("DEPLOY_GITHUB_TOKEN={}", token.value);
    let ran = runtime.run(&["--env", &variable], "first", &["/bin/sleep", "1"]);
    let exposed = agent.expect("the exposure in the container", ran.pid, |e| {
        e.is("credential_exposed") && e.env_name() == "DEPLOY_GITHUB_TOKEN"
    });
    let delivery = exposed.delivery.clone().unwrap_or_default();
    assert_eq!(delivery.container, "first", "{}", exposed.brief());
    let by: Vec<_> = delivery.path.iter().map(|s| s.how.as_str()).collect();
    assert!(by.contains(&"read"), "{by:?}");
    let bundle = &delivery.path[0].name;
    assert!(bundle.ends_with("/first/config.json"), "{bundle}");
    let process = exposed.process.as_ref().unwrap();
    assert_eq!(process.namespace_pid, 1);
    let ancestors: Vec<u32> = process.ancestors.iter().map(|a| a.pid).collect();
    assert!(
        delivery
            .path
            .iter()
            .all(|step| ancestors.contains(&step.pid))
    );
    // Beyond the time that a runtime is given.
    std::thread::sleep(patience(6));
    agent.wait_idle();
    let reported = about(&agent, exposed.fingerprint());
    // What the client was given as an argument, said to its server, and is answered, is its own affair.
    let is_the_clients = |e: &Event| {
        let peer = e.destination.as_ref().and_then(|to| to.peer.as_ref());
        e.pid() == ran.pid || e.channel() == "unix" && peer.is_some_and(|peer| peer.pid == ran.pid)
    };
    // And the runtime's database is a copy that stays.
    let is_a_copy = |e: &Event| {
        e.channel() == "file"
            && e.destination
                .as_ref()
                .is_some_and(|to| to.path.ends_with("/meta.db"))
    };
    let others: Vec<_> = reported
        .iter()
        .filter(|e| e.id != exposed.id && !is_the_clients(e) && !is_a_copy(e))
        .cloned()
        .collect();
    assert!(
        others.is_empty(),
        "the runtime's work is reported:\n{}",
        list(&others)
    );
    println!("{}", list(&reported));
}

/// Files in a container have the container's paths, with the host's beside; each read is reported once.
pub fn files_have_the_containers_paths() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (runtime, in_image) = Runtime::start(&scratch);
    let agent = Agent::start(&scratch);
    let (mounted, outside) = plant::aws_credentials(&scratch.make("outside"));
    let mount = format!(
        "type=bind,src={},dst=/run/secrets/aws,options=rbind:ro",
        outside.display()
    );
    let script = "cat /run/secrets/aws > /root/copy; cat /root/.aws/credentials; sleep 1";
    let ran = runtime.run(&["--mount", &mount], "second", &["/bin/sh", "-c", script]);
    let read = |planted: &plant::Planted, path: &str| {
        let first = agent.expect("the read in the container", ran.pid, |e| {
            e.is("credential_read") && e.shows(planted)
        });
        agent.wait_idle();
        let reads: Vec<Event> = agent
            .events()
            .into_iter()
            .filter(|e| e.is("credential_read") && e.fingerprint() == first.fingerprint())
            .collect();
        super::count(&reads, 1, "reads");
        let source = reads[0].source.clone().unwrap();
        assert_eq!(source.path, path, "{}", reads[0].brief());
        PathBuf::from(source.host_path)
    };
    assert_eq!(read(&mounted, "/run/secrets/aws"), outside);
    let made = agent.expect("the new file", ran.pid, |e| {
        let source = e.source.as_ref();
        e.is("credential_created") && source.is_some_and(|source| source.path == "/root/copy")
    });
    let host_path = made.source.unwrap().host_path;
    assert!(host_path.ends_with("/fs/root/copy"), "{host_path}");
    let layer = read(&in_image, "/root/.aws/credentials");
    let layers = scratch.join("containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    assert!(
        layer.starts_with(&layers) && layer.ends_with(Path::new("fs/root/.aws/credentials")),
        "{}",
        layer.display()
    );
}

/// A program that was copied into a running container and reads a credential there is told from those of the image.
pub fn a_program_that_is_not_of_the_image() {
    const RULE: &str = "added-to-container";
    let _turn = turn();
    let scratch = Scratch::new();
    let (runtime, planted) = Runtime::start(&scratch);
    let agent = Agent::start(&scratch);
    let script = "/bin/cat /root/.aws/credentials; /bin/busybox cp /bin/busybox /root/cat; \
                  /root/cat /root/.aws/credentials; sleep 1";
    // As runtimes of clusters call them: by this it is known for a container.
    let name = "0123456789abcdef".repeat(4);
    let ran = runtime.run(&[], &name, &["/bin/sh", "-c", script]);
    let read_by = |program: &str| {
        let read = agent.expect(program, ran.pid, |e| {
            e.is("credential_read") && e.shows(&planted) && e.executable() == program
        });
        let exe = read.process.as_ref().and_then(|p| p.executable.as_ref());
        (exe.unwrap().upper_layer, read.brief())
    };
    let (added, text) = read_by("/root/cat");
    assert!(added, "{text}");
    let (added, text) = read_by("/bin/busybox");
    assert!(!added, "{text}");
    agent.wait_idle();
    let accused: Vec<String> = agent
        .events()
        .iter()
        .filter(|e| e.finding.as_ref().is_some_and(|f| f.rule == RULE))
        .map(|e| e.executable().to_owned())
        .collect();
    assert_eq!(accused, ["/root/cat"], "{}", list(&agent.events()));
    // It is as young as any, and reported once.
    let fresh = |e: &Event| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "fresh-program")
    };
    assert!(!agent.events().iter().any(fresh));
}
