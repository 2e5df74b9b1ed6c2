//! MariaDB on a shared disk: its data and settings as they lie there before the first start.

use std::path::Path;

use crate::command::run;
use crate::trouble::{Result, While as _};

/// Makes a database `shop` with an empty table `orders` in a folder, and settings (`my.cnf`) that let a client `client` in from everywhere.
pub fn create(folder: &Path) -> Result<()> {
    let at = folder.to_string_lossy();
    let data = format!("--datadir={at}/data");
    let made = ["--no-defaults", "--user=mysql", "--auth-root-authentication-method=normal", "--skip-test-db", &data];
    run("mariadb-install-db", &made)?;
    let tables = "CREATE DATABASE IF NOT EXISTS shop;\nCREATE TABLE IF NOT EXISTS shop.orders (number BIGINT PRIMARY KEY);\n\
                  CREATE USER IF NOT EXISTS 'client'@'%';\nGRANT ALL ON shop.* TO 'client'@'%';\n";
    std::fs::write(folder.join("tables.sql"), tables).to("write the tables")?;
    let settings = format!(
        "[mariadbd]\ndatadir={at}/data\ninit-file={at}/tables.sql\nsocket={at}/data/mariadb.sock\npid-file={at}/data/mariadb.pid\n\
         innodb-buffer-pool-size=16M\ninnodb-log-file-size=4M\nperformance-schema=OFF\n"
    );
    std::fs::write(folder.join("my.cnf"), settings).to("write the settings")
}
