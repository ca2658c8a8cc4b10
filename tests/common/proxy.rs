//! A load balancer of Debian's in front of nodes, with our configuration file for it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cluster::free_port;
use super::http::Http;
use super::wait_for;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    HaProxy,
    Nginx,
}

/// A running load balancer; it dies with this.
pub struct Proxy {
    child: Child,
    log: std::path::PathBuf,
    /// Where HTTP goes.
    pub url: String,
    /// Where gRPC goes.
    pub grpc_url: String,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Kind::HaProxy => "haproxy",
            Kind::Nginx => "nginx",
        }
    }

    /// Whether it is installed, with what our file needs; says so where it is not.
    pub fn is_here(self) -> bool {
        let mut missing = vec![];
        if Command::new(self.program()).arg("-v").output().is_err() {
            missing.push(self.program());
        }
        let packages = self.modules().iter().filter(|(file, _)| !Path::new(file).exists());
        missing.extend(packages.map(|(_, package)| package));
        if !missing.is_empty() {
            let missing = missing.join(" ");
            super::say!("SKIPPED: {self:?} lacks {missing}; apt-get install {missing}");
        }
        missing.is_empty()
    }

    /// A file of each package that it needs beside its own, and the package.
    fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::HaProxy => &[],
            Kind::Nginx => &[
                ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
                ("/usr/share/lua/5.1/socket.lua", "lua-socket"),
            ],
        }
    }

    fn file(self) -> &'static str {
        match self {
            Kind::HaProxy => "cluster/haproxy.cfg",
            Kind::Nginx => "cluster/nginx.conf",
        }
    }

    /// What of our file is this machine's: ports.
    fn listeners(self) -> [&'static str; 2] {
        match self {
            Kind::HaProxy => ["    bind :80\n", "    bind :80\n"],
            Kind::Nginx => ["listen 80;", "listen 7443 http2;"],
        }
    }
}

impl Proxy {
    /// Starts one in front of three nodes (`host:port`), once they are to be reached through it.
    ///
    /// # Panics
    /// Where our file lacks what is to be replaced in it, and where the program refuses it.
    pub fn start(kind: Kind, nodes: &[String], directory: &Path) -> Proxy {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = std::fs::read_to_string(root.join(kind.file())).unwrap();
        for (i, node) in nodes.iter().enumerate() {
            let example = format!("chat{}.example.org:7400", i + 1);
            assert!(text.contains(&example), "{} lacks {example}", kind.file());
            text = text.replace(&example, node.trim_start_matches("http://"));
        }
        assert!(!text.contains("example.org:"), "{} has more nodes than three", kind.file());
        let [http, grpc] = kind.listeners();
        let ports = [free_port(), free_port()];
        assert!(text.contains(http) && text.contains(grpc), "{} listens elsewhere", kind.file());
        let place = |listener: &str, port| match kind {
            Kind::HaProxy => format!("    bind 127.0.0.1:{port}\n"),
            Kind::Nginx => listener
                .replace("listen ", "listen 127.0.0.1:")
                .replace(if listener.contains("7443") { "7443" } else { "80" }, &format!("{port}")),
        };
        text = text.replace(http, &place(http, ports[0]));
        let grpc_port = if http == grpc { ports[0] } else { ports[1] };
        text = text.replace(grpc, &place(grpc, grpc_port));
        let file = directory.join(kind.program());
        std::fs::write(&file, text).unwrap();

        let log = directory.join(format!("{}.log", kind.program()));
        let (out, err) = (std::fs::File::create(&log).unwrap(), &log);
        let mut command = Command::new(kind.program());
        match kind {
            Kind::HaProxy => command.arg("-db").arg("-f").arg(&file),
            Kind::Nginx => {
                let pid = directory.join("nginx.pid");
                let own = format!("daemon off; pid {};", pid.display());
                command.arg("-c").arg(&file);
                command.args(["-e", err.to_str().unwrap(), "-g", &own])
            }
        };
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap();
        let url = |port| format!("http://127.0.0.1:{port}");
        let mut proxy = Proxy { child, log, url: url(ports[0]), grpc_url: url(grpc_port) };
        let http = Http::new(&proxy.url);
        wait_for(kind.program(), Duration::from_secs(20), || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("it exited with {status}: {}", proxy.said());
            }
            match http.get("/health/ready").map(|answer| answer.status) {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        proxy
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked, nginx's master takes its workers along.
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.said());
        }
    }
}
