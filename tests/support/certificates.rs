//! An authority that nobody else trusts, and what it signs for `localhost`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Files in this directory: `ca.pem`, and a server's `server.pem` and `server.key`. They are as readable as the directory.
pub(crate) fn make(directory: &Path) -> PathBuf {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(arguments.split(' '));
        let output = command.output().expect("openssl is installed");
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    let names = directory.join("names");
    std::fs::write(names, "subjectAltName=DNS:localhost\n").expect("a file");
    let key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(&format!(
        "{key} -x509 -subj /CN=authority -keyout ca.key -out ca.pem"
    ));
    openssl(&format!(
        "{key} -subj /CN=localhost -keyout server.key -out server.csr"
    ));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
    directory.join("ca.pem")
}
