"""A page about finished runs that can be sent to a colleague: one HTML file that needs neither network nor nern."""
