-- What an admin may do: `admin` or `auditor`, who reads all and changes nothing. A program of the version before
-- lets an auditor do everything.
ALTER TABLE admins ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE admins ADD COLUMN is_active BOOLEAN NOT NULL DEFAULT TRUE;
