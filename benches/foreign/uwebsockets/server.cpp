// uWebSockets on its own epoll loop, as its examples EchoServer and Broadcast have it, without TLS and compression.
//
// server PORT [broadcast]: echoes every message, or publishes it to all connections but its sender.

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "App.h"

namespace {

struct PerSocketData {};

constexpr const char *topic = "all";

// As much as the node lets wait for a peer that does not read.
constexpr unsigned int backpressure_bytes_max = 64u << 20;

}  // namespace

int main(int count, char **arguments) {
    if (count < 2) {
        std::cerr << "server PORT [broadcast]\n";
        return 2;
    }
    const int port = std::atoi(arguments[1]);
    const bool broadcast = count > 2 && std::string_view(arguments[2]) == "broadcast";
    uWS::App::WebSocketBehavior<PerSocketData> behavior;
    behavior.compression = uWS::DISABLED;
    behavior.maxPayloadLength = 1u << 20;
    behavior.idleTimeout = 0;
    behavior.maxBackpressure = backpressure_bytes_max;
    behavior.sendPingsAutomatically = false;
    if (broadcast) {
        behavior.open = [](auto *socket) { socket->subscribe(topic); };
        behavior.message = [](auto *socket, std::string_view message, uWS::OpCode code) {
            socket->publish(topic, message, code);
        };
    } else {
        behavior.message = [](auto *socket, std::string_view message, uWS::OpCode code) { socket->send(message, code); };
    }
    uWS::App()
        .ws<PerSocketData>("/*", std::move(behavior))
        .listen("127.0.0.1", port,
                [port](auto *listening) {
                    if (!listening) {
                        std::cerr << "cannot listen on port " << port << "\n";
                        std::exit(1);
                    }
                    std::cout << "ready listen=127.0.0.1:" << port << std::endl;
                })
        .run();
}
