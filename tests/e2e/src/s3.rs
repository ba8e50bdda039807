//! An S3 server on loopback (moto's, from PyPI; its conditional writes hold), with one empty bucket.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{clients, places};

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    /// `http://host:port`
    pub endpoint: String,
    child: Child,
}

impl S3Server {
    /// Starts it with one bucket; nothing if moto is not installed, which is noted as a skip.
    pub fn start(bucket: &str) -> Result<Option<Self>> {
        if !places::python().exists() {
            clients::skipped("target/venv has no Python; tests/setup/setup.sh python says why")?;
            return Ok(None);
        }
        let mut child = Command::new(places::python())
            .arg("-B")
            .arg(places::client_scripts().join("s3_server.py"))
            .arg(bucket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start the S3 server")?;
        let stdout = child.stdout.take().context("take the S3 server's output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the S3 server")?;
        match line.trim().split_once(' ') {
            Some(("ready", endpoint)) => Ok(Some(Self {
                endpoint: endpoint.to_owned(),
                child,
            })),
            _ if child.wait().context("wait for the S3 server's end")?.code() == Some(77) => {
                clients::skipped(line.trim())?;
                Ok(None)
            }
            _ => bail!("the S3 server did not start: {line}"),
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
