"""The field app: a static page that names photos on the device that it is opened on, see docs/site.md."""
