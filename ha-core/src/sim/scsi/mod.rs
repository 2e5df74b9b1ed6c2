//! A SCSI device with persistent reservations, as its initiators see it.
