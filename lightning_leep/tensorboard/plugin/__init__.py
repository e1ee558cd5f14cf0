"""One page for a folder of transfers, as a file and as the tab "Transfer" of TensorBoard. No torch, no Lightning.

``page_data`` makes plain data from records, ``static`` holds the page that draws them, in plain JavaScript.
"""

#: Name of the plugin in event files and addresses.
PLUGIN_NAME = "lightning_leep"
#: Last parts of its tags: the record, at the start and at the end; what a run that is under way has come to since; the
#: ranking that the source was chosen from.
TRANSFER_TAG, SO_FAR_TAG, RANKING_TAG = "transfer", "transfer_so_far", "transfer_ranking"
