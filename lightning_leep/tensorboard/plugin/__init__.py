"""One page for a folder of transfers, as a file and as the tab "Transfer" of TensorBoard. No torch, no Lightning.

``page_data`` makes plain data from records, ``static`` holds the page that draws them, in plain JavaScript.
"""

#: Name of the plugin in event files and addresses.
PLUGIN_NAME = "lightning_leep"
