"""Views: one folder for each view of the page, and the units that several of them show."""
