"""What people look at: the colours and style of figures, the timeline, and the HTML page; arrays in."""
