"""Behind the page: bundles, uploads, messages and what a server must not do."""
